import { requestLock } from '@redismutex/fastify'
import fastify from 'fastify'

/** A Fastify server with the same route twice: without the lock and with it. */
export async function start(accounts, redis) {
  const app = fastify()
  await app.register(requestLock, {
    redis,
    keyFrom: (request) => accounts.nameOf(/** @type {any} */ (request.params).user),
  })

  app.decorateRequest('arrived', 0)
  app.addHook('onRequest', noteArrival)
  app.get('/', async () => ({ ready: true }))
  app.post('/without-lock/:user/withdraw/:amount', { config: { lock: false } }, withdraw)
  app.post('/with-lock/:user/withdraw/:amount', withdraw)

  function noteArrival(request, _reply, next) {
    request.arrived = Date.now()
    next()
  }

  async function withdraw(request) {
    const done = await accounts.withdraw(request.params.user, Number(request.params.amount))
    return { server: 'Fastify', arrived: request.arrived, ...done }
  }

  const url = await app.listen({ port: 0, host: '127.0.0.1' })
  return { url, close: () => app.close() }
}
