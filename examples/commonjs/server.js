// The packages from CommonJS: require() loads the same ES modules that import does.
// Here an app is on its way from Express to Fastify. Both run in one process and share one mutex, so
// that requests of one user run one after another, whichever of the two they reach.
const { setTimeout: pause } = require('node:timers/promises')
const { memoryStore, Mutex, RedisMutex } = require('@redismutex/core')
const expressLock = require('@redismutex/express').requestLock
const fastifyLock = require('@redismutex/fastify').requestLock
const express = require('express')
const fastify = require('fastify')
const { Redis } = require('ioredis')

const { PORT = 3000, FASTIFY_PORT = 3001, REDIS_URL } = process.env
const redis = REDIS_URL ? new Redis(REDIS_URL) : undefined
const mutex = redis ? new RedisMutex(redis) : new Mutex(memoryStore())
const visits = redis ?? new Map()

const userOf = (request) => request.params.user

async function visit(user) {
  const before = Number((await visits.get(`visits:${user}`)) ?? 0)
  await pause(100) // Does what takes a while, …
  await visits.set(`visits:${user}`, before + 1)
  return { visits: before + 1 }
}

const old = express()
const lock = expressLock({ mutex, keyFrom: userOf })
old.post('/visits/:user', lock, async (req, res) => res.json(await visit(userOf(req))))

const young = fastify()
young.register(fastifyLock, { mutex, keyFrom: userOf })
young.after(() => {
  young.post('/visits/:user', (request) => visit(userOf(request)))
})

const server = old.listen(Number(PORT), async (error) => {
  if (error) throw error
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  console.log(`Express is listening on http://localhost:${port}`)
  console.log(`Fastify is listening on ${await young.listen({ port: Number(FASTIFY_PORT) })}`)
})

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, async () => {
    server.close()
    await Promise.all([lock.close(), young.close()]) // Who waits gets 503, who is at work may finish.
    await mutex.close()
    await redis?.quit()
    setTimeout(() => server.closeAllConnections(), 1000).unref() // Who stays connected is cut off.
  })
}
