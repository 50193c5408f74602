// A shopping cart that loses nothing, however fast one user clicks and however many servers there are.
import { setTimeout as pause } from 'node:timers/promises'
import { requestLock } from '@redismutex/express'
import express from 'express'
import { Redis } from 'ioredis'

const { PORT = 3000, REDIS_URL } = process.env
const redis = REDIS_URL ? new Redis(REDIS_URL) : undefined
const carts = redis ?? new Map()

// Without a Redis it locks inside this process. In your app the user comes from your login.
const lock = requestLock({ redis, keyFrom: (req) => req.get('x-user') })

const app = express()
app.use(express.json())
app.use((req, res, next) => {
  if (req.get('x-user')) next()
  else res.status(401).json({ error: 'Tell your name in the header x-user.' })
})
app.use(lock) // From here on: POST, PUT, PATCH and DELETE of one user run one after another.

app.post('/cart', async (req, res) => {
  const name = `cart:${req.get('x-user')}`
  const cart = JSON.parse((await carts.get(name)) ?? '{}')
  await pause(100) // Checks the stock, asks for the price, …
  cart[req.body.item] = (cart[req.body.item] ?? 0) + 1
  await carts.set(name, JSON.stringify(cart))
  res.status(201).json(cart)
})

app.get('/cart', async (req, res) => {
  res.json(JSON.parse((await carts.get(`cart:${req.get('x-user')}`)) ?? '{}'))
})

const server = app.listen(Number(PORT), (error) => {
  if (error) throw error
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  console.log(`listening on http://localhost:${port}`)
})

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, async () => {
    server.close(() => redis?.quit())
    await lock.close() // Who waits gets 503 now, who is at work may finish.
    setTimeout(() => server.closeAllConnections(), 1000).unref() // Who stays connected is cut off.
  })
}
