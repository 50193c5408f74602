import { setTimeout as sleep } from 'node:timers/promises'
import { requestLock } from '@redismutex/fastify'
import fastify, { type FastifyInstance, type FastifyRequest } from 'fastify'
import { connect } from '../contestants/connection.js'
import { adapterOptions, type Guard, KEEP_ALIVE, type MakeServer, underLock } from './server.js'

const path = '/users/:id'
const userOf = (request: FastifyRequest): string => (request.params as { id: string }).id
const keyOf = (request: FastifyRequest): string => `user:${userOf(request)}`

export const makeFastify: MakeServer = async (guard, work) => {
  const app = fastify({ keepAliveTimeout: KEEP_ALIVE })
  await addRoute(app, guard, work)
  await app.listen({ port: 0, host: '127.0.0.1' })
  return app.server
}

async function addRoute(app: FastifyInstance, guard: Guard, work: number): Promise<void> {
  const answer = async (request: FastifyRequest): Promise<object> => {
    if (work > 0) await sleep(work)
    return { user: userOf(request) }
  }
  switch (guard.kind) {
    case 'none':
      app.post(path, answer)
      break
    case 'adapter': {
      const redis = await connect(guard.port)
      await app.register(requestLock, { redis, keyFrom: keyOf, ...adapterOptions })
      app.post(path, answer)
      break
    }
    case 'hand-written': {
      const { locker } = guard
      app.post(path, (request, reply) => {
        const left = () => reply.raw.destroyed
        return underLock(locker, keyOf(request), left, () => answer(request)).then((answered) => {
          if (answered === undefined) reply.hijack()
          return answered
        })
      })
    }
  }
}
