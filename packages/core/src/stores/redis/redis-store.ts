import { LONGEST_TIMER } from '../../clock.js'
import { assertOptions, shown } from '../../options.js'
import type { Store } from '../store.js'
import { assertClient, type RedisClient } from './client.js'
import { assertClusterPrefix, assertPrefix } from './names.js'
import type { WaitReplicas } from './replicas.js'
import { RedisStore } from './store.js'

/** How locks are named in Redis. */
export interface RedisStoreOptions {
  /**
   * Put in front of every key. `''` shares keys with other libraries that lock with a plain
   * `SET key value NX PX`: they and this one exclude each other.
   * @default 'mutex:'
   */
  keyPrefix?: string | undefined
  /**
   * Has a lock count as acquired, and as renewed, only when so many replicas of the Redis have it too:
   * a failover to one of them does not lose it. If they have not within `timeout` ms, it is given back
   * and asked for again after `delay`, until `blockTime` is over; then `MutexStoreError`. It costs a
   * connection more, and the way to the replicas and back each time. Not with a Cluster, whose nodes
   * have replicas of their own.
   *
   * Which replica takes over is for Sentinel to say: only with `count` as high as there are replicas it
   * can't be one that lacks the lock.
   *
   * Stores of one client that differ in this exclude each other as those of two processes do.
   *
   * @see https://redis.io/docs/latest/commands/wait/
   */
  waitReplicas?: WaitReplicas | undefined
}

/** The names of all options of a Redis store. */
export const redisStoreOptionNames: readonly string[] = ['keyPrefix', 'waitReplicas']

const stores = new WeakMap<RedisClient, Map<string, Store>>()

/**
 * The store of the locks with one prefix in what an ioredis client speaks to: one Redis,
 * Sentinel, or a Cluster. The same client and options give the same store.
 *
 * @throws TypeError for a wrong connection, or wrong options
 * @throws RangeError for wrong values of `waitReplicas`
 * @example
 * const mutex = new Mutex(redisStore(new Redis()))
 */
export function redisStore(redis: RedisClient, options: RedisStoreOptions = {}): Store {
  assertClient(redis)
  assertOptions(options, redisStoreOptionNames)
  const { keyPrefix = 'mutex:', waitReplicas } = options
  assertPrefix('keyPrefix', keyPrefix)
  if (redis.isCluster) assertClusterPrefix(redis.options?.keyPrefix ?? '')
  if (waitReplicas !== undefined) assertWaitReplicas(waitReplicas, redis)
  const ofClient = stores.get(redis) ?? new Map<string, Store>()
  stores.set(redis, ofClient)
  const replicas = waitReplicas && { count: waitReplicas.count, timeout: waitReplicas.timeout }
  const name = `${replicas?.count}|${replicas?.timeout}|${keyPrefix}`
  const store = ofClient.get(name) ?? new RedisStore(redis, keyPrefix, replicas)
  ofClient.set(name, store)
  return store
}

function assertWaitReplicas(value: unknown, redis: RedisClient): asserts value is WaitReplicas {
  assertOptions(value, ['count', 'timeout'], 'waitReplicas')
  const { count, timeout } = value as Record<string, unknown>
  assertWhole('waitReplicas.count', count, Number.MAX_SAFE_INTEGER)
  assertWhole('waitReplicas.timeout', timeout, LONGEST_TIMER)
  if (redis.isCluster || typeof redis.wait !== 'function') {
    const got = redis.isCluster ? 'a Cluster' : 'one without wait'
    const rule = 'needs a client of one server at a time, since WAIT tells of that one’s replicas'
    throw new TypeError(`waitReplicas ${rule}, got ${got}`)
  }
}

function assertWhole(name: string, value: unknown, most: number): asserts value is number {
  const message = `${name} must be a whole number from 1 to ${most}, got ${shown(value)}`
  if (typeof value !== 'number') throw new TypeError(message)
  if (!Number.isInteger(value) || value < 1 || value > most) throw new RangeError(message)
}
