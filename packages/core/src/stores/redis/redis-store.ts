import { assertOptions } from '../../options.js'
import type { Store } from '../store.js'
import { assertClient, type RedisClient } from './client.js'
import { assertClusterPrefix, assertPrefix } from './names.js'
import { RedisStore } from './store.js'

/** How locks are named in Redis. */
export interface RedisStoreOptions {
  /**
   * Put in front of every key. `''` shares keys with other libraries that lock with a plain
   * `SET key value NX PX`: they and this one exclude each other.
   * @default 'mutex:'
   */
  keyPrefix?: string | undefined
}

/** The names of all options of a Redis store. */
export const redisStoreOptionNames: readonly string[] = ['keyPrefix']

const stores = new WeakMap<RedisClient, Map<string, Store>>()

/**
 * The store of the locks with one prefix in what an ioredis client speaks to: one Redis or Valkey,
 * Sentinel, or a Cluster. The same client and prefix give the same store.
 *
 * @throws TypeError for a wrong connection or prefix
 * @example
 * const mutex = new Mutex(redisStore(new Redis()))
 */
export function redisStore(redis: RedisClient, options: RedisStoreOptions = {}): Store {
  assertClient(redis)
  assertOptions(options, redisStoreOptionNames)
  const { keyPrefix = 'mutex:' } = options
  assertPrefix('keyPrefix', keyPrefix)
  if (redis.isCluster) assertClusterPrefix(redis.options?.keyPrefix ?? '')
  const ofClient = stores.get(redis) ?? new Map<string, Store>()
  stores.set(redis, ofClient)
  const store = ofClient.get(keyPrefix) ?? new RedisStore(redis, keyPrefix)
  ofClient.set(keyPrefix, store)
  return store
}
