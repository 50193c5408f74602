// A shop that never sells more than it has, and never takes more than a customer has.
import { setTimeout as pause } from 'node:timers/promises'
import { requestLock } from '@redismutex/fastify'
import fastify from 'fastify'
import { Redis } from 'ioredis'

const { PORT = 3000, REDIS_URL } = process.env
const redis = REDIS_URL ? new Redis(REDIS_URL) : undefined
const amounts = redis ?? new Map()
const amountOf = async (name) => Number((await amounts.get(name)) ?? 100)

const customerOf = (request) => `customer:${request.headers['x-user']}` // In your app: from your login.
const productOf = (request) => `product:${request.body.product}`
const headers = { type: 'object', required: ['x-user'] }
const body = { type: 'object', required: ['product'], properties: { product: { type: 'string' } } }

const app = fastify()

// From here on POST, PUT, PATCH and DELETE of one customer run one after another.
// Without a Redis it locks inside this process.
await app.register(requestLock, { redis, keyFrom: customerOf })

// An order changes two things: it holds both or none, in whatever order others want them.
const both = { keyFrom: (request) => [customerOf(request), productOf(request)] }
app.post('/orders', { config: { lock: both }, schema: { headers, body } }, order)

// A second click while the first is at work must not charge twice: it gets 409 at once.
app.post('/deposits', { config: { lock: { blocking: false } }, schema: { headers } }, deposit)

// A GET takes a lock where it asks for one: this never sees half an order.
app.get('/balance', { config: { lock: true }, schema: { headers } }, async (request) => ({
  balance: await amountOf(customerOf(request)),
}))

async function order(request, reply) {
  const [customer, product] = [customerOf(request), productOf(request)]
  const [balance, stock] = [await amountOf(customer), await amountOf(product)]
  await pause(100) // Talks to the warehouse, …
  if (balance < 10 || stock < 1) return reply.code(422).send({ balance, stock })
  await amounts.set(customer, balance - 10)
  await amounts.set(product, stock - 1)
  return reply.code(201).send({ balance: balance - 10, stock: stock - 1 })
}

async function deposit(request, reply) {
  const balance = await amountOf(customerOf(request))
  await pause(100) // Charges the credit card, …
  await amounts.set(customerOf(request), balance + 50)
  return reply.code(201).send({ balance: balance + 50 })
}

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, async () => {
    await app.close() // Who waits gets 503 now, who is at work may finish.
    await redis?.quit()
  })
}

console.log(`listening on ${await app.listen({ port: Number(PORT) })}`)
