import { memoryStore, redisStore } from '@redismutex/core'
import type { Redis } from 'ioredis'
import { namesOf } from '../../packages/core/src/stores/redis/names.js'
import { redisClients } from '../support/clients.js'
import { sharedRedis } from '../support/redis.js'
import type { Outside } from './ground.js'
import { mutexConformance } from './mutex.js'
import { processConformance } from './processes.js'

mutexConformance('memoryStore', () => memoryStore())

for (const client of redisClients) {
  const create = () => client.create(sharedRedis().port)
  const makeStore = (keyPrefix: string) => redisStore(create(), { keyPrefix })

  let redis: Redis | undefined
  const outside: Required<Outside> = {
    steal: (prefix, key) => outsider().del(prefix + key),
    queued: (prefix, key) => outsider().zcard(namesOf(prefix + key, '').queue),
    async leftovers(prefix) {
      const names = await outsider().keys(`*${prefix}*`)
      return names.filter((name) => !name.startsWith('redismutex:fence:'))
    },
  }
  /** One client for all of a test. */
  function outsider(): Redis {
    if (!redis || redis.status === 'end') redis = create()
    return redis
  }

  mutexConformance(`redisStore with ${client.name}`, makeStore, outside)
  processConformance(`redisStore with ${client.name}`, makeStore, outside)
}
