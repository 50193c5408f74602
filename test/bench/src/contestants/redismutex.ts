import { Mutex, memoryStore, RedisMutex } from '@redismutex/core'
import { Cluster } from 'ioredis'
import { connect } from './connection.js'
import { type Contestant, PATIENCE } from './contestant.js'

const options = { blockTime: PATIENCE, expiry: PATIENCE + 10_000 }

const acquirer = (mutex: Mutex) => async (key: string) => {
  const lock = await mutex.acquireLock(key)
  return () => lock.release()
}

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
      acquire: acquirer(mutex),
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
      acquire: acquirer(mutex),
      close: () => mutex.close(),
    }
  },
}

/** For what only we are measured in: how far it carries. */
export const redismutexOnCluster: Contestant = {
  name: 'redismutex on a Cluster',
  kind: 'ours',
  store: 'redis',
  about: 'RedisMutex on a Cluster client, with a blockTime of a minute',
  sends: redismutex.sends,
  async open(port) {
    const cluster = new Cluster([{ host: '127.0.0.1', port }])
    const mutex = new RedisMutex(cluster, options)
    return {
      acquire: acquirer(mutex),
      close: async () => {
        await mutex.close()
        cluster.disconnect()
      },
    }
  },
}
