import { Mutex, memoryStore, RedisMutex } from '@redismutex/core'
import { connect } from './connection.js'
import { type Contestant, PATIENCE } from './contestant.js'

const options = { blockTime: PATIENCE, expiry: PATIENCE + 10_000 }

export const redismutex: Contestant = {
  name: 'redismutex',
  kind: 'ours',
  store: 'redis',
  about: 'RedisMutex with a blockTime of a minute',
  sends: ['evalsha', 'eval', 'subscribe'],
  async open(port) {
    const redis = await connect(port)
    const mutex = new RedisMutex(redis, options)
    return {
      acquire: async (key) => {
        const lock = await mutex.acquireLock(key)
        return () => lock.release()
      },
      close: async () => {
        await mutex.close()
        redis.disconnect()
      },
    }
  },
}

export const redismutexInMemory: Contestant = {
  name: 'redismutex in memory',
  kind: 'ours',
  store: 'memory',
  about: 'Mutex on memoryStore() with a blockTime of a minute',
  sends: [],
  async open() {
    const mutex = new Mutex(memoryStore(), options)
    return {
      acquire: async (key) => {
        const lock = await mutex.acquireLock(key)
        return () => lock.release()
      },
      close: () => mutex.close(),
    }
  },
}
