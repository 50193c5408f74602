import { BlockTimeExceedError, MutexStoreError, RedisMutex } from '@redismutex/core'
import { expect } from 'chai'
import type { Redis } from 'ioredis'
import { range, rejection, until } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'
import { redisClients } from '../support/clients.js'
import { startProxy } from '../support/proxy.js'
import { freshKey, type RedisServer, startRedis } from '../support/redis.js'
import { scriptCalls } from './stats.js'

const [client] = redisClients as [(typeof redisClients)[number]]

describe('when many fail at once', () => {
  let server: RedisServer
  let look: Redis
  let key: string

  // A server of its own, so that nobody else's commands are counted.
  before(async () => {
    server = await startRedis()
  })
  after(() => server.stop())

  beforeEach(() => {
    look = client.create(server.port)
    key = freshKey()
  })

  async function mutexAt(port: number, options: object): Promise<RedisMutex> {
    const mutex = new RedisMutex(client.create(port), options)
    atEnd(() => mutex.close())
    await mutex.runExclusive(freshKey(), () => {})
    return mutex
  }

  const queued = (count: number) =>
    until(async () => (await look.zcard(`redismutex:queue:{mutex:${key}}`)) === count)

  it('a thousand waiters of one key whose time is over cost no more commands than a few', async () => {
    const elsewhere = await mutexAt(server.port, { blockTime: 30_000, expiry: 40_000 })
    const held = await elsewhere.acquireLock(key)
    const mutex = await mutexAt(server.port, { blockTime: 800, delay: 700 })
    const waiters = range(1000).map(() => rejection(mutex.acquireLock(key)))
    await queued(1)
    const before = await scriptCalls(look)
    for (const error of await Promise.all(waiters)) {
      expect(error).to.be.instanceOf(BlockTimeExceedError)
    }
    await queued(0)
    // Two for each turn of the event loop at most, and not two for each waiter.
    expect((await scriptCalls(look)) - before).to.be.below(250)
    await held.release()
  })

  it('a thousand waiters who are called off one by one cost no more commands than a few', async () => {
    const elsewhere = await mutexAt(server.port, { blockTime: 30_000, expiry: 40_000 })
    const held = await elsewhere.acquireLock(key)
    const mutex = await mutexAt(server.port, { blockTime: 20_000, expiry: 30_000, delay: 15_000 })
    const callers = range(1000).map(() => new AbortController())
    const waiters = callers.map(({ signal }) => rejection(mutex.acquireLock(key, { signal })))
    const patient = mutex.acquireLock(key)
    await queued(1)
    const before = await scriptCalls(look)
    for (const caller of callers) caller.abort(new Error('called off'))
    await Promise.all(waiters)
    await held.release()
    await (await patient).release()
    expect((await scriptCalls(look)) - before).to.be.below(12)
  })

  it('a thousand waiters of one key are refused by one command when Redis is out of reach', async () => {
    const proxy = await startProxy(server.port)
    const mutex = await mutexAt(proxy.port, { storeTimeout: 300 })
    const before = await scriptCalls(look)
    proxy.pause()
    const waiters = await Promise.all(range(1000).map(() => rejection(mutex.acquireLock(key))))
    for (const error of waiters) expect(error).to.be.instanceOf(MutexStoreError)
    proxy.resume()
    await mutex.runExclusive(key, () => {})
    // The ask, what takes it back, and the acquisition with its release.
    await until(async () => (await look.exists(`mutex:${key}`)) === 0)
    expect((await scriptCalls(look)) - before).to.be.below(10)
  })
})
