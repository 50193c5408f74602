import { assertOptions, shown } from '../../options.js'
import { assertClient, type RedisClient } from '../redis/client.js'
import { assertClusterPrefix, assertPrefix } from '../redis/names.js'
import type { Store } from '../store.js'
import { QuorumStore } from './store.js'

/** How locks are named on the masters. */
export interface QuorumStoreOptions {
  /**
   * Put in front of every key. `''` shares keys with other libraries that ask a majority of the same
   * masters by a plain `SET key value NX PX`: they and this one exclude each other.
   * @default 'mutex:'
   */
  keyPrefix?: string | undefined
}

/** The names of all options of a quorum store. */
export const quorumStoreOptionNames: readonly string[] = ['keyPrefix']

const FEWEST = 3

const stores = new WeakMap<RedisClient, Set<QuorumStore>>()

/**
 * A store over several Redis servers that know nothing of each other: a lock is held by whoever a
 * majority of them has given it to, so it survives that the others are down. The same clients and
 * prefix, in any order, give the same store.
 *
 * It is redis.io's distributed-locks algorithm. There is no order between processes: whoever asks at
 * the right moment is next. A process asks again after 5 to 10 ms, and while the holder stays the same
 * after 1.5 times as long each time, up to `delay`.
 *
 * A master that comes back without its data has forgotten whom it gave its vote: let it stay away for
 * as long as the longest `lease`, or have it keep its data with `appendfsync always`.
 *
 * @param masters ioredis clients of at least three servers that are no replicas of each other, best
 *   an odd number; all processes must name the same ones. They stay yours to close.
 * @throws TypeError for wrong connections or a wrong prefix
 * @see https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/
 * @example
 * const masters = ['a.example', 'b.example', 'c.example'].map((host) => new Redis({ host }))
 * const mutex = new Mutex(quorumStore(masters))
 */
export function quorumStore(
  masters: readonly RedisClient[],
  options: QuorumStoreOptions = {},
): Store {
  assertMasters(masters)
  assertOptions(options, quorumStoreOptionNames)
  const { keyPrefix = 'mutex:' } = options
  assertPrefix('keyPrefix', keyPrefix)
  for (const store of stores.get(masters[0] as RedisClient) ?? []) {
    if (store.isOf(masters, keyPrefix)) return store
  }
  const store = new QuorumStore(masters, keyPrefix)
  for (const client of masters) {
    const ofClient = stores.get(client) ?? new Set()
    stores.set(client, ofClient.add(store))
  }
  return store
}

function assertMasters(masters: unknown): asserts masters is readonly RedisClient[] {
  if (!Array.isArray(masters) || masters.length < FEWEST) {
    const got = Array.isArray(masters) ? `an array of ${masters.length}` : shown(masters)
    throw new TypeError(`masters must be an array of at least ${FEWEST} clients, got ${got}`)
  }
  const seen = new Map<unknown, number>()
  for (const [index, client] of masters.entries()) {
    const name = `masters[${index}]`
    assertClient(client, name)
    if (client.isCluster) assertClusterPrefix(client.options?.keyPrefix ?? '')
    const address = addressOf(client)
    const twin = seen.get(client) ?? seen.get(address)
    if (twin !== undefined) {
      throw new TypeError(`${name} must be another server than masters[${twin}], got the same one`)
    }
    seen.set(client, index)
    if (address !== undefined) seen.set(address, index)
  }
}

/** Where a client connects to, if its options tell. */
function addressOf(client: RedisClient): string | undefined {
  const { host, port, path, sentinels } = (client.options ?? {}) as Record<string, unknown>
  if (client.isCluster || sentinels) return undefined
  if (typeof path === 'string') return path
  return typeof host === 'string' ? `${host}:${port}` : undefined
}
