import { once } from 'node:events'
import { requestLock } from '@redismutex/express'
import express from 'express'

/** An Express server with the same route twice: without the lock and with it. */
export async function start(accounts, redis) {
  const lock = requestLock({ redis, keyFrom: (req) => accounts.nameOf(req.params.user) })
  const app = express()

  app.use((_req, res, next) => {
    res.locals.arrived = Date.now()
    next()
  })
  app.get('/', (_req, res) => res.json({ ready: true }))
  app.post('/without-lock/:user/withdraw/:amount', withdraw)
  app.post('/with-lock/:user/withdraw/:amount', lock, withdraw)

  async function withdraw(req, res) {
    const done = await accounts.withdraw(req.params.user, Number(req.params.amount))
    res.json({ server: 'Express', arrived: res.locals.arrived, ...done })
  }

  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  return {
    url: `http://127.0.0.1:${port}`,
    async close() {
      server.close()
      await lock.close()
    },
  }
}
