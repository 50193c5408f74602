import { Mutex } from './mutex.js'
import { assertOptions, type MutexOptions, mutexOptionNames } from './options.js'
import type { RedisClient } from './stores/redis/client.js'
import {
  type RedisStoreOptions,
  redisStore,
  redisStoreOptionNames,
} from './stores/redis/redis-store.js'

/** The options of a mutex and of its store together. */
export interface RedisMutexOptions extends MutexOptions, RedisStoreOptions {}

/**
 * A mutex in Redis.
 *
 * @example
 * const mutex = new RedisMutex(new Redis(), { blockTime: 5_000, expiry: 7_000 })
 * {
 *   await using lock = await mutex.acquireLock('user:42')
 * }
 */
export class RedisMutex extends Mutex {
  /**
   * @param redis an ioredis client (`Redis` or `Cluster`); it stays yours to close
   * @throws TypeError for a wrong connection, a wrong type or an unknown option
   * @throws RangeError for a wrong value, or values in a wrong order
   */
  constructor(redis: RedisClient, options: RedisMutexOptions = {}) {
    assertOptions(options, [...mutexOptionNames, ...redisStoreOptionNames])
    const { keyPrefix, waitReplicas, ...mutexOptions } = options
    super(redisStore(redis, { keyPrefix, waitReplicas }), mutexOptions)
  }
}
