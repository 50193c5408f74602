import type { Cluster, Redis } from 'ioredis'
import { namesOf } from '../../packages/core/src/stores/redis/names.js'
import type { Outside } from '../conformance/ground.js'

/** What a test sees of a deployment by a client of its own. */
export function outsideOf<Client extends Redis | Cluster>(
  create: () => Client,
  mastersOf: (client: Client) => Redis[],
): Required<Outside> {
  let client: Client | undefined
  /** One client for all of a test. */
  const outsider = (): Client => {
    // A Cluster that has ended says 'close'.
    if (!client || ['close', 'end'].includes(client.status)) client = create()
    return client
  }
  return {
    steal: (prefix, key) => outsider().del(prefix + key),
    queued: (prefix, key) => outsider().zcard(namesOf(prefix + key, '').queue),
    async leftovers(prefix) {
      const redis = outsider()
      await redis.ping()
      const names = await Promise.all(mastersOf(redis).map((master) => master.keys(`*${prefix}*`)))
      return names.flat().filter((name) => !name.startsWith('redismutex:fence'))
    },
  }
}
