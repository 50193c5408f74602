import { BlockTimeExceedError, RedisMutex } from '@redismutex/core'
import { expect } from 'chai'
import { rejection } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'
import { type RedisClient, redisClients } from '../support/clients.js'
import { startProxy } from '../support/proxy.js'
import { freshKey, sharedRedis } from '../support/redis.js'

const [library] = redisClients as [RedisClient]

describe('when Redis is farther away than a lease is long', () => {
  it('a lock can not be had, and nobody waits longer than blockTime', async () => {
    const proxy = await startProxy(sharedRedis().port)
    const options = { blockTime: 700, delay: 20, expiry: 2000, lease: 100, storeTimeout: 600 }
    const mutex = new RedisMutex(library.create(proxy.port), options)
    atEnd(() => mutex.close())
    await mutex.with({ lease: 2000 }).runExclusive(freshKey(), () => {})
    proxy.delay(60)
    const key = freshKey()
    expect(await rejection(mutex.acquireLock(key))).to.be.instanceOf(BlockTimeExceedError)
    proxy.delay(0)
    await (await mutex.acquireLock(key)).release()
  })
})
