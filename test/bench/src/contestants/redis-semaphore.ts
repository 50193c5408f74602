import { connect } from './connection.js'
import { type Contestant, PATIENCE } from './contestant.js'

export const redisSemaphore: Contestant = {
  name: 'redis-semaphore',
  kind: 'peer',
  store: 'redis',
  about: 'Mutex (polls every 10 ms, renews) with an acquireTimeout of a minute instead of 10 s',
  sends: ['set', 'evalsha', 'eval'],
  async open(port) {
    const { Mutex } = await import('redis-semaphore')
    const redis = await connect(port)
    return {
      acquire: async (key) => {
        const mutex = new Mutex(redis, key, { acquireTimeout: PATIENCE })
        await mutex.acquire()
        return () => mutex.release()
      },
      close: async () => redis.disconnect(),
    }
  },
}
