import { METHODS } from 'node:http'
import { Mutex } from '../mutex.js'
import { assertOptions, defined, type MutexOptions, mutexOptionNames, shown } from '../options.js'
import { embeddedStore } from '../stores/memory.js'
import type { RedisClient } from '../stores/redis/client.js'
import { redisStore } from '../stores/redis/redis-store.js'
import type { Store } from '../stores/store.js'
import type { KeyFrom } from './key.js'

/**
 * What one route may set for itself. The options of a mutex are among them, with defaults of
 * their own: `expiry` is `Infinity` (as long as the request lives), so that `lease` is 10000 ms, and
 * `maxWaiting` is 50.
 */
export interface LockOptions<Req, OnBusy> extends MutexOptions {
  /** Names what the request is to hold: a key, several, or `null` or `undefined` for no lock. */
  keyFrom?: KeyFrom<Req> | undefined
  /**
   * The request methods that are locked where a lock is set for everything at once.
   * @default ['POST', 'PUT', 'PATCH', 'DELETE']
   */
  methods?: readonly string[] | undefined
  /** `true` for requests that go on without a lock. */
  skip?: ((request: Req) => boolean | PromiseLike<boolean>) | undefined
  /**
   * The status of the answer when somebody else has the lock for too long, or too many wait.
   * @default 409
   */
  statusCode?: number | undefined
  /** Answers a request that did not get its lock, instead of the built-in problem document. */
  onBusy?: OnBusy | undefined
  /**
   * When the store can't be asked: `'fail'` answers 503, `'pass'` goes on without a lock.
   * @default 'fail'
   */
  onStoreError?: 'fail' | 'pass' | undefined
  /**
   * When the client leaves while its request holds the lock: `'keep'` it until the handler is done,
   * since it still writes, or `'release'` it at once. `lock.signal` aborts either way.
   * @default 'keep'
   */
  onClientAbort?: 'keep' | 'release' | undefined
  /**
   * Whether the last bytes of the answer wait for the release, so that a client's next request never
   * meets the lock of its previous one. Of an answer that is streamed its end waits, but not on
   * HTTP/1.0.
   * @default true if `blocking` is false, else false
   */
  awaitRelease?: boolean | undefined
  /**
   * Whether to add `lock;dur=…`, the time waited in ms, to the `Server-Timing` header.
   * @default false
   */
  serverTiming?: boolean | undefined
  /**
   * The longest that a request holds its lock, in ms. More than `blockTime`; `Infinity`: as long as
   * the request lives.
   * @default Infinity
   */
  expiry?: number | undefined
  /**
   * How many may wait for one key in this process, so that one user can't occupy every connection; the
   * next is refused at once.
   * @default 50
   */
  maxWaiting?: number | undefined
}

/** Where the locks are: at most one of `redis`, `store` and `mutex`. */
export interface WhereOptions {
  /** An ioredis client. It stays yours to close. */
  redis?: RedisClient | undefined
  /** A store such as `memoryStore()`. */
  store?: Store | undefined
  /** A mutex, to lock by its store and options; closing the adapter does not close it. */
  mutex?: Mutex | undefined
  /**
   * Put in front of every key, with `redis`.
   * @default 'mutex:'
   */
  keyPrefix?: string | undefined
}

/** The options of an adapter. Without `redis`, `store` or `mutex` it locks inside this process. */
export interface RequestLockOptions<Req, OnBusy> extends LockOptions<Req, OnBusy>, WhereOptions {}

type Check = (name: string, value: unknown) => void

const typed =
  (rule: string, holds: (value: unknown) => boolean): Check =>
  (name, value) => {
    if (!holds(value)) throw new TypeError(`${name} must be ${rule}, got ${shown(value)}`)
  }

const fun = typed('a function', (value) => typeof value === 'function')
const flag = typed('true or false', (value) => typeof value === 'boolean')
const oneOf = (...words: string[]): Check =>
  typed(words.map((word) => `'${word}'`).join(' or '), (value) => words.includes(value as string))

const checks: Record<Exclude<keyof LockOptions<never, never>, keyof MutexOptions>, Check> = {
  keyFrom: fun,
  methods: (name, value) => {
    const rule = "an array of HTTP methods such as ['POST']"
    typed(rule, Array.isArray)(name, value)
    for (const method of value as unknown[]) {
      // One that is misspelt would let what it means go unlocked.
      const known = (one: unknown) => typeof one === 'string' && METHODS.includes(one.toUpperCase())
      typed(rule, known)(name, method)
    }
  },
  skip: fun,
  statusCode: (name, value) => {
    const message = `${name} must be a whole number from 400 to 599, got ${shown(value)}`
    if (typeof value !== 'number') throw new TypeError(message)
    if (!Number.isInteger(value) || value < 400 || value > 599) throw new RangeError(message)
  },
  onBusy: fun,
  onStoreError: oneOf('fail', 'pass'),
  onClientAbort: oneOf('keep', 'release'),
  awaitRelease: flag,
  serverTiming: flag,
}

/** The names of all options that a route may set. */
export const lockOptionNames: readonly string[] = [...Object.keys(checks), ...mutexOptionNames]

const whereNames = ['redis', 'store', 'mutex'] as const

/** The names of all options of an adapter. */
export const requestLockOptionNames: readonly string[] = [
  ...lockOptionNames,
  ...whereNames,
  'keyPrefix',
]

/** @throws TypeError, RangeError for an unknown option or a wrong value; mutexes check their own */
export function assertLockOptions(
  options: unknown,
  known: readonly string[] = lockOptionNames,
  what?: string,
): asserts options is LockOptions<unknown, unknown> {
  assertOptions(options, known, what)
  for (const [name, check] of Object.entries(checks)) {
    const value = (options as Record<string, unknown>)[name]
    if (value !== undefined) check(name, value)
  }
}

/** Of all options, those that are a mutex's own, where they are set. */
export function mutexOptionsOf(options: MutexOptions): MutexOptions {
  const own = mutexOptionNames.map((name) => [name, options[name as keyof MutexOptions]])
  return defined(Object.fromEntries(own))
}

/** A request holds as long as it lives, and one user must not pin every connection. */
const defaults: MutexOptions = { expiry: Number.POSITIVE_INFINITY, maxWaiting: 50 }

/**
 * The mutex that an adapter locks with: its own, so that closing it closes nobody else's.
 * @throws TypeError, RangeError for wrong options
 */
export function mutexOf(options: MutexOptions & WhereOptions): Mutex {
  const { redis, store, mutex, keyPrefix } = options
  const given = whereNames.filter((name) => options[name] !== undefined)
  if (given.length > 1) {
    throw new TypeError(`redis, store and mutex exclude each other, got ${given.join(' and ')}`)
  }
  if (keyPrefix !== undefined && redis === undefined) {
    throw new TypeError('keyPrefix is an option of redis only, got it without redis')
  }
  const own = mutexOptionsOf(options)
  if (mutex !== undefined) {
    if (typeof mutex?.acquireLock !== 'function' || typeof mutex.store?.acquire !== 'function') {
      throw new TypeError(`mutex must be a Mutex or RedisMutex, got ${shown(mutex)}`)
    }
    return new Mutex(mutex.store, { ...defaults, ...mutex.options, ...own })
  }
  if (redis !== undefined) {
    return new Mutex(redisStore(redis, { keyPrefix }), { ...defaults, ...own })
  }
  if (store !== undefined) return new Mutex(store, { ...defaults, ...own })
  warnOfEmbedding()
  return new Mutex(embeddedStore(), { ...defaults, ...own })
}

let warned = false

function warnOfEmbedding(): void {
  if (warned || process.env.NODE_ENV !== 'production') return
  warned = true
  process.emitWarning(
    'requestLock has none of redis, store and mutex: it locks inside this process only, ' +
      'and other processes are not kept out',
    { type: 'RequestLockWarning', code: 'REDISMUTEX_EMBEDDED' },
  )
}
