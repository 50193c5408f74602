/** What the type checker must accept of the mutex, and what it must not. Nothing here is run. */
import {
  type AcquireOptions,
  embeddedStore,
  type Lock,
  Mutex,
  MutexError,
  type MutexErrorCode,
  MutexLockError,
  type MutexOptions,
  type MutexStats,
  memoryStore,
  quorumStore,
  type RedisClient,
  RedisMutex,
  type RedisMutexOptions,
  redisStore,
  type Store,
} from '@redismutex/core'
import { Cluster, Redis } from 'ioredis'
import { Cluster as Cluster5, Redis as Redis5 } from 'ioredis5'
import { type Equal, holds } from './equal.js'

// Connections

const redis: Redis = new Redis()
export const clients: RedisClient[] = [
  redis,
  new Cluster([]),
  new Redis5(),
  new Cluster5([]),
  redis.duplicate(),
]
new RedisMutex(redis)
new RedisMutex(new Cluster([]), {})
new RedisMutex(new Redis5(), { keyPrefix: '' })
// @ts-expect-error a connection is needed
new RedisMutex()
// @ts-expect-error null is none
new RedisMutex(null)
// @ts-expect-error an address is none
new RedisMutex('redis://127.0.0.1')
// @ts-expect-error options of a client are none
new RedisMutex({ host: '127.0.0.1', port: 6379 })
// @ts-expect-error a pipeline is none
new RedisMutex(redis.pipeline())
// @ts-expect-error a store is none
new RedisMutex(memoryStore())

// Stores

export const stores: Store[] = [
  memoryStore(),
  embeddedStore(),
  redisStore(redis),
  redisStore(redis, { keyPrefix: 'app:' }),
  redisStore(redis, { waitReplicas: { count: 1, timeout: 100 } }),
  quorumStore([redis, new Redis5(), new Cluster([])]),
  quorumStore(clients, { keyPrefix: 'app:' }),
]
const mutex = new Mutex(memoryStore())
// @ts-expect-error a store is needed
new Mutex()
// @ts-expect-error a client is none
new Mutex(redis)
// @ts-expect-error options of a mutex are none of a store
redisStore(redis, { blockTime: 5 })
// @ts-expect-error how long to wait must be said
redisStore(redis, { waitReplicas: { count: 1 } })
// @ts-expect-error a number of replicas alone is not enough
new RedisMutex(redis, { waitReplicas: 1 })
// @ts-expect-error masters are no replicas
quorumStore(clients, { waitReplicas: { count: 1, timeout: 100 } })
// @ts-expect-error one client is no quorum
quorumStore(redis)
// @ts-expect-error addresses are no clients
quorumStore(['redis://a', 'redis://b', 'redis://c'])
// @ts-expect-error an option that there is not
quorumStore(clients, { quorum: 2 })

// Options

const all: Required<MutexOptions> = {
  blocking: true,
  blockTime: 5000,
  delay: 500,
  expiry: Number.POSITIVE_INFINITY,
  lease: 10_000,
  storeTimeout: 1000,
  maxWaiting: 50,
}
new Mutex(memoryStore(), all)
new RedisMutex(redis, { ...all, keyPrefix: 'app:' })
new Mutex(memoryStore(), { blockTime: undefined, maxWaiting: undefined })
mutex.with({ blockTime: undefined })
// @ts-expect-error nobody knows it
new Mutex(memoryStore(), { blocktime: 5 })
// @ts-expect-error a mutex has no prefix, its store has
new Mutex(memoryStore(), { keyPrefix: 'app:' })
// @ts-expect-error a number is needed
new Mutex(memoryStore(), { blockTime: '5' })
// @ts-expect-error null is no number
new RedisMutex(redis, { expiry: null })
// @ts-expect-error true or false
new RedisMutex(redis, { blocking: 1 })
// @ts-expect-error a string is needed
new RedisMutex(redis, { keyPrefix: 5 })
holds<Equal<RedisMutexOptions['keyPrefix'], string | undefined>>()

// Locking

const keys: readonly string[] = ['a', 'b'] as const
const { signal } = new AbortController()
const options: AcquireOptions = { signal, blocking: true, blockTime: 5 }
holds<Equal<typeof lock, Lock>>()
const lock = await mutex.acquireLock('key')
await mutex.acquireLock(keys, options)
await mutex.acquireLock(['a', 'b'], { signal: undefined })
// @ts-expect-error a key is needed
await mutex.acquireLock()
// @ts-expect-error a number is no key
await mutex.acquireLock(42)
// @ts-expect-error null is no key
await mutex.tryAcquire(null)
// @ts-expect-error numbers are no keys
await mutex.acquireLock([1, 2])
// @ts-expect-error what can't differ by call
await mutex.acquireLock('key', { delay: 5 })
// @ts-expect-error a controller is no signal
await mutex.acquireLock('key', { signal: new AbortController() })
// @ts-expect-error a try has no options
await mutex.tryAcquire('key', options)

const tried = await mutex.tryAcquire('key')
holds<Equal<typeof tried, Lock | null>>()
// @ts-expect-error perhaps there is none
void tried.release()

holds<Equal<Lock['key'], string | null>>()
holds<Equal<Lock['value'], string | null>>()
holds<Equal<Lock['fencingToken'], string | null>>()
holds<Equal<Lock['keys'], readonly string[]>>()
holds<Equal<Lock['signal'], AbortSignal>>()
holds<Equal<Lock['waited'], number>>()
// @ts-expect-error it can't be set
lock.key = 'other'
holds<Equal<ReturnType<Lock['release']>, Promise<void>>>()

const number = await mutex.runExclusive('key', () => 1)
holds<Equal<typeof number, number>>()
const text = await mutex.runExclusive(keys, async (lock) => `${lock.key}`, options)
holds<Equal<typeof text, string>>()
const nothing = await mutex.runExclusive('key', () => {})
holds<Equal<typeof nothing, void>>()
// @ts-expect-error a body is needed
await mutex.runExclusive('key')

{
  await using held = await mutex.acquireLock('key')
  await using own = new RedisMutex(redis)
  holds<Equal<typeof held, Lock>>()
  holds<Equal<ReturnType<typeof own.stats>, MutexStats>>()
}
holds<Equal<ReturnType<typeof mutex.with>, Mutex>>()

// Errors

try {
  await lock.release()
} catch (error) {
  if (error instanceof MutexLockError) {
    holds<Equal<typeof error.code, 'ERR_MUTEX_LOCKED'>>()
    holds<Equal<typeof error.key, string | undefined>>()
  } else if (error instanceof MutexError) {
    const code: MutexErrorCode = error.code
    void code
  }
}
// @ts-expect-error it is only a base
new MutexError('message')
