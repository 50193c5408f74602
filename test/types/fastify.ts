import { type Lock, type Mutex, memoryStore } from '@redismutex/core'
import requestLockDefault, {
  type RequestLockOptions,
  type RouteLockOptions,
  requestLock,
} from '@redismutex/fastify'
import fastify, { type FastifyRequest, type RouteShorthandOptions } from 'fastify'
import { Redis } from 'ioredis'

// Compiled with the tests, never run: what TypeScript lets users of the Fastify plugin do.

const app = fastify()
const keyFrom = ({ headers }: FastifyRequest) => headers.authorization

await app.register(requestLock, { keyFrom, redis: new Redis(), keyPrefix: 'app:' })
await app.register(requestLockDefault, { keyFrom, store: memoryStore(), hook: 'onRequest' })
await app.register(requestLock, { mutex: app.mutex, keyFrom: async () => ['a', 'b'] as const })
await app.register(requestLock)
await app.register(requestLock, {
  keyFrom,
  onBusy: (_request, reply, error) => reply.code(error.statusCode).send({ code: error.code }),
})

const mutex: Mutex = app.mutex

app.post('/plain', async (request) => {
  const held: Lock | null = request.lock
  return held?.fencingToken
})
app.get('/asked', { config: { lock: true } }, async () => 'done')
app.get('/never', { config: { lock: false } }, async () => 'done')
app.get(
  '/own',
  { config: { lock: { keyFrom: ({ ip }) => ip, blockTime: 1000, awaitRelease: true } } },
  async () => 'done',
)
app.post<{ Body: { id: string } }>('/typed', async (request) => {
  await request.lock?.release()
  return request.body.id
})

const route: RouteLockOptions = { keyFrom: () => ['a', 'b'], blocking: false, statusCode: 423 }
const all = { config: { lock: route } } satisfies RouteShorthandOptions

// @ts-expect-error a handler can't do without asking whether there is a lock
app.post('/unasked', async (request) => request.lock.release())
// @ts-expect-error an option that there is not
await app.register(requestLock, { keyFrom, blocktime: 1000 })
// @ts-expect-error a key is a string
await app.register(requestLock, { keyFrom: () => 42 })
// @ts-expect-error a hook that comes too late
await app.register(requestLock, { keyFrom, hook: 'onSend' })
// @ts-expect-error a route has no store of its own
const elsewhere: RouteLockOptions = { store: memoryStore() }
// @ts-expect-error neither yes nor no nor options
const yes = { config: { lock: 'yes' } } satisfies RouteShorthandOptions
// @ts-expect-error an option that there is not
const wrong = { config: { lock: { blocktime: 1 } } } satisfies RouteShorthandOptions

export const options: RequestLockOptions[] = [{ keyFrom }]
export { all, elsewhere, mutex, wrong, yes }
