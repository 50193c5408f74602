import { once } from 'node:events'
import { createServer } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { requestLock } from '@redismutex/express'
import express, { type Request, type RequestHandler, type Response } from 'express'
import { connect } from '../contestants/connection.js'
import { adapterOptions, type Guard, KEEP_ALIVE, type MakeServer, underLock } from './server.js'

const keyOf = (req: Request): string => `user:${req.params.id}`

export const makeExpress: MakeServer = async (guard, work) => {
  const app = express()
  app.post('/users/:id', ...(await handlers(guard, work)))
  const server = createServer({ keepAliveTimeout: KEEP_ALIVE }, app).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server
}

async function handlers(guard: Guard, work: number): Promise<RequestHandler[]> {
  const answer = async (req: Request, res: Response): Promise<void> => {
    if (work > 0) await sleep(work)
    res.json({ user: req.params.id })
  }
  switch (guard.kind) {
    case 'none':
      return [answer]
    case 'adapter': {
      const redis = await connect(guard.port)
      return [requestLock({ redis, keyFrom: keyOf, ...adapterOptions }), answer]
    }
    case 'hand-written': {
      const { locker } = guard
      return [
        (req, res, next) => {
          const left = () => res.destroyed
          underLock(locker, keyOf(req), left, () => answer(req, res)).catch(next)
        },
      ]
    }
  }
}
