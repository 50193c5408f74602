import { type Lock, type Mutex, memoryStore } from '@redismutex/core'
import {
  type RefusalError,
  type RequestLock,
  type RequestLockOptions,
  requestLock,
} from '@redismutex/express'
import express from 'express'
import { Cluster, Redis } from 'ioredis'
import { Redis as Redis5 } from 'ioredis5'

// Compiled with the tests, never run: what TypeScript lets users of requestLock in Express do.

const app = express()
const keyFrom = (req: express.Request) => req.get('x-user')

const lock: RequestLock = requestLock({ keyFrom, redis: new Redis(), keyPrefix: 'app:' })
requestLock({ keyFrom, redis: new Redis5() })
requestLock({ keyFrom, redis: new Cluster([]) })
requestLock({ keyFrom, store: memoryStore(), blockTime: 1000, expiry: 3000 })
requestLock({ keyFrom, mutex: lock.mutex, onStoreError: 'pass', onClientAbort: 'release' })
requestLock({ keyFrom: async (req) => [req.path, 'all'] as const })
requestLock({ keyFrom: () => null, skip: async (req) => req.secure, methods: ['POST'] })
requestLock({
  keyFrom,
  onBusy(req, res, next, error: RefusalError) {
    if (req.secure) next(error)
    else res.status(error.statusCode).set(error.headers).json({ code: error.code })
  },
})

app.use(lock)
app.use('/api', lock, express.json())
app.post('/cart/:id', lock, (req, res) => {
  const id: string = req.params.id
  const held: Lock | undefined = req.lock
  held?.signal.addEventListener('abort', () => res.end())
  res.json({ id })
})

interface Params {
  id: string
}
interface Locals {
  user: string
}
const typed: express.RequestHandler<Params, string, { item: string }, { page: string }, Locals> = (
  { params, body, query },
  res,
) => {
  res.send([params.id, body.item, query.page, res.locals.user].join())
}
app.post('/typed/:id', lock, typed)
app.post('/typed/:id', lock, requestLock.wrap(typed))

app.post(
  '/wrapped/:id',
  lock,
  requestLock.wrap(async (req, res) => {
    res.json({ id: req.params.id, waited: req.lock?.waited, body: req.body })
  }),
)

const handler = requestLock.wrap(async (req, res) => {
  res.json({ id: req.params.id, page: req.query.page, body: req.body.item, user: res.locals.user })
})
app.post('/named/:id', lock, handler)

const mutex: Mutex = lock.mutex
const closed: Promise<void> = lock.close()

// @ts-expect-error a handler can't do without asking whether there is a lock
app.post('/', (req) => req.lock.release())
// @ts-expect-error there is no lock without a key
requestLock({})
// @ts-expect-error a key is a string
requestLock({ keyFrom: () => 42 })
// @ts-expect-error an option that there is not
requestLock({ keyFrom, blocktime: 1000 })
// @ts-expect-error times are numbers
requestLock({ keyFrom, blockTime: '1s' })
// @ts-expect-error one of two words
requestLock({ keyFrom, onStoreError: 'ignore' })
// @ts-expect-error a connection, not its address
requestLock({ keyFrom, redis: 'redis://localhost' })
// @ts-expect-error the mutex is not to be replaced
lock.mutex = mutex
// @ts-expect-error a handler is a function
requestLock.wrap('handler')

export const options: RequestLockOptions[] = [{ keyFrom }]
export { closed }
