import { memoryStore, redisStore, type Store } from '@redismutex/core'
import type { Redis } from 'ioredis'
import { namesOf } from '../../packages/core/src/stores/redis/names.js'
import { type RedisClient, redisClients } from '../support/clients.js'
import { sharedRedis } from '../support/redis.js'
import { type Replicated, startReplicated } from '../support/replica.js'
import type { Outside, Traits } from './ground.js'
import { mutexConformance } from './mutex.js'
import { processConformance } from './processes.js'

mutexConformance('memoryStore', () => memoryStore())

for (const client of redisClients) {
  redisConformance(
    `redisStore with ${client.name}`,
    () => client.create(sharedRedis().port),
    (redis, keyPrefix) => redisStore(redis, { keyPrefix }),
  )
}

describe('with a replica', () => {
  let servers: Replicated

  before(async () => {
    servers = await startReplicated()
  })

  after(() => servers.stop())

  redisConformance(
    'redisStore with waitReplicas',
    () => (redisClients[0] as RedisClient).create(servers.primary.port),
    (redis, keyPrefix) =>
      redisStore(redis, { keyPrefix, waitReplicas: { count: 1, timeout: 1000 } }),
    { prompt: false },
  )
})

function redisConformance(
  name: string,
  create: () => Redis,
  storeOf: (redis: Redis, keyPrefix: string) => Store,
  traits: Traits = {},
): void {
  const makeStore = (keyPrefix: string) => storeOf(create(), keyPrefix)

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

  mutexConformance(name, makeStore, outside, traits)
  processConformance(name, makeStore, outside, traits)
}
