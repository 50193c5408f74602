import type { Contestant } from './contestant.js'

export const simpleRedisMutex: Contestant = {
  name: 'simple-redis-mutex',
  kind: 'peer',
  store: 'redis',
  about: 'lock() on node-redis, the client that it needs; every release wakes all who wait',
  sends: ['set', 'incr', 'evalsha', 'eval', 'script|load', 'subscribe'],
  async open(port) {
    const { createClient } = await import('redis')
    const { lock } = await import('simple-redis-mutex')
    const redis = createClient({ socket: { host: '127.0.0.1', port } })
    redis.on('error', () => {})
    await redis.connect()
    return {
      acquire: (key) => lock(redis as never, key),
      close: async () => redis.destroy(),
    }
  },
}
