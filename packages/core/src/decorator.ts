import { types } from 'node:util'
import { assertKey } from './mutex.js'
import { shown } from './options.js'
import { RedisMutex, type RedisMutexOptions } from './redis-mutex.js'
import type { RedisClient } from './stores/redis/client.js'

/** A key, several, or how to make them from a function's arguments. */
export type KeyOrFunction<This, Args extends unknown[]> =
  | string
  | readonly string[]
  | ((
      this: This,
      ...args: Args
    ) => string | readonly string[] | PromiseLike<string | readonly string[]>)

/**
 * Takes a function, or a method as a standard decorator sees it, that is to run under a lock. Its
 * arguments begin with those that the key is made from.
 */
export type Exclusive<This, Args extends unknown[]> = <
  T extends This,
  // biome-ignore lint/suspicious/noExplicitAny: what follows is the wrapped function's own
  A extends [...Args, ...any[]],
  R,
>(
  body: (this: T, ...args: A) => R | Promise<R>,
  context?: ClassMethodDecoratorContext<T>,
) => (this: T, ...args: A) => Promise<R>

/**
 * Has a function run under a lock: wraps a function, or decorates a method (static ones too).
 * The lock itself is not passed to it; what is to know its lock uses `runExclusive`. A generator can't
 * be wrapped: it runs when it is iterated over, long after the call.
 *
 * @param redis an ioredis client
 * @param keyOrFunction a static key, or a function that makes one from the same arguments (and
 *   `this`) as the call
 * @param options those of the `RedisMutex` that it makes
 * @throws TypeError for a static key that is none; TypeError, RangeError as `new RedisMutex(redis,
 *   options)` does; the wrapped function rejects as `mutex.runExclusive` does
 *
 * @example
 * const save = withRedisMutex(redis, (user: User) => `user:${user.id}`)(async (user: User) => { … })
 *
 * class Cart {
 *   \@withRedisMutex(redis, (id: string) => `cart:${id}`)
 *   async add(id: string, item: Item) { … }
 * }
 */
// biome-ignore lint/suspicious/noExplicitAny: `this` and the arguments are whatever the wrapped function's are
export function withRedisMutex<This = any, Args extends unknown[] = any[]>(
  redis: RedisClient,
  keyOrFunction: KeyOrFunction<This, Args>,
  options: RedisMutexOptions = {},
): Exclusive<This, Args> {
  if (
    typeof keyOrFunction !== 'function' &&
    typeof keyOrFunction !== 'string' &&
    !Array.isArray(keyOrFunction)
  ) {
    throw new TypeError(`keyOrFunction must be a key or a function, got ${shown(keyOrFunction)}`)
  }
  const mutex = new RedisMutex(redis, options)
  if (typeof keyOrFunction !== 'function') assertKey(mutex.store, keyOrFunction)
  return (body, context) => {
    if (typeof body !== 'function' || (context && context.kind !== 'method')) {
      throw new TypeError(
        `withRedisMutex wraps functions and methods, got ${context?.kind ?? shown(body)}`,
      )
    }
    if (types.isGeneratorFunction(body)) {
      throw new TypeError(
        'withRedisMutex wraps functions that run when they are called, got a generator',
      )
    }
    return async function (...args) {
      const key =
        typeof keyOrFunction === 'function'
          ? await keyOrFunction.apply(this, args as unknown as Args)
          : keyOrFunction
      return mutex.runExclusive(key, () => body.apply(this, args))
    }
  }
}
