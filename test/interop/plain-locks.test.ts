import { setTimeout as sleep } from 'node:timers/promises'
import {
  BlockTimeExceedError,
  MutexUnlockError,
  RedisMutex,
  type RedisMutexOptions,
} from '@redismutex/core'
import { expect } from 'chai'
import type { Redis } from 'ioredis'
import { rejection, until } from '../conformance/ground.js'
import { Tap } from '../core/tap.js'
import { atEnd } from '../support/cleanup.js'
import { redisClients } from '../support/clients.js'
import { freshKey, type RedisServer, sharedRedis, startRedis } from '../support/redis.js'

/**
 * A lock as py-redismutex, redlock, redis-semaphore's Mutex and redis-py take it, each with values
 * of its own making.
 */
class PlainLock {
  constructor(
    readonly redis: Redis,
    readonly key: string,
    readonly value: string = freshKey('value'),
  ) {}

  async tryAcquire(ttl: number): Promise<boolean> {
    return (await this.redis.set(this.key, this.value, 'PX', ttl, 'NX')) === 'OK'
  }

  /** Without a time to live, as redis-py does when it is given no timeout. */
  async tryAcquireForEver(): Promise<boolean> {
    return (await this.redis.set(this.key, this.value, 'NX')) === 'OK'
  }

  /** In three steps, as py-redismutex does. */
  async release(): Promise<boolean> {
    const value = await this.redis.get(this.key)
    if (value !== this.value) return false
    await this.redis.del(this.key)
    return true
  }

  /** In one script, as the others do. */
  async releaseByScript(): Promise<boolean> {
    const script = `if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("del", KEYS[1]) else return 0 end`
    return (await this.redis.eval(script, 1, this.key, this.value)) === 1
  }
}

for (const client of redisClients) {
  describe(`with keyPrefix '', by way of ${client.name}`, () => {
    let redis: Redis
    let key: string
    let foreign: PlainLock

    beforeEach(() => {
      redis = client.create(sharedRedis().port)
      key = freshKey()
      foreign = new PlainLock(redis, key)
    })

    function create(options: RedisMutexOptions = {}): RedisMutex {
      const mutex = new RedisMutex(client.create(sharedRedis().port), { keyPrefix: '', ...options })
      atEnd(() => mutex.close())
      return mutex
    }

    it('a foreign lock excludes us', async () => {
      expect(await foreign.tryAcquire(10_000)).to.equal(true)
      const mutex = create({ blockTime: 300 })
      expect(await mutex.tryAcquire(key)).to.equal(null)
      expect(await rejection(mutex.acquireLock(key))).to.be.instanceOf(BlockTimeExceedError)
      expect(await redis.get(key)).to.equal(foreign.value)
      await foreign.release()
      await mutex.runExclusive(key, () => {})
    })

    it('our lock excludes a foreign one', async () => {
      const lock = await create().acquireLock(key)
      expect(await foreign.tryAcquire(10_000)).to.equal(false)
      expect(await foreign.release()).to.equal(false)
      expect(await redis.get(key)).to.equal(lock.value)
      await lock.release()
      expect(await foreign.tryAcquire(10_000)).to.equal(true)
      await foreign.release()
    })

    for (const release of ['release', 'releaseByScript'] as const) {
      it(`a foreign ${release} is noticed within delay`, async () => {
        await foreign.tryAcquire(60_000)
        const mutex = create({ blockTime: 10_000, delay: 100 })
        const waiter = mutex.acquireLock(key)
        await until(() => mutex.stats().waiting === 1)
        await sleep(20)
        expect(await foreign[release]()).to.equal(true)
        const lock = await waiter
        // Long before its time is over, and before blockTime is.
        expect(lock.waited).to.be.below(5000)
        await lock.release()
      })
    }

    it('a foreign lock is waited for no longer than it lasts', async () => {
      await foreign.tryAcquire(150)
      const mutex = create({ blockTime: 12_000, delay: 11_000, expiry: 13_000 })
      const lock = await mutex.acquireLock(key)
      expect(lock.waited).to.be.below(6000)
      await lock.release()
    })

    it('many who wait for a foreign lock all get their turn', async () => {
      await foreign.tryAcquire(10_000)
      const mutexes = [create({ delay: 50 }), create({ delay: 50 })]
      const order: number[] = []
      const waiters = mutexes.flatMap((mutex, which) =>
        [0, 1, 2].map(() => mutex.runExclusive(key, () => order.push(which))),
      )
      await until(() => mutexes.every((mutex) => mutex.stats().waiting === 3))
      await foreign.release()
      await Promise.all(waiters)
      expect(order).to.have.length(6)
    })

    it('a foreign poller gets the lock when we are done', async () => {
      const lock = await create().acquireLock(key)
      let got = false
      const polling = (async () => {
        while (!(await foreign.tryAcquire(10_000))) await sleep(5)
        got = true
      })()
      await sleep(20)
      expect(got).to.equal(false)
      await lock.release()
      await polling
      await foreign.release()
    })

    it('a release that finds a foreign lock in the place of ours takes nothing away', async () => {
      const mutex = create()
      const lock = await mutex.acquireLock(key)
      // As if ours had expired, or somebody had deleted it.
      await redis.set(key, foreign.value, 'PX', 10_000)
      expect(await rejection(lock.release())).to.be.instanceOf(MutexUnlockError)
      expect(await redis.get(key)).to.equal(foreign.value)
      expect(await mutex.tryAcquire(key)).to.equal(null)
      await foreign.release()
    })

    for (const value of [
      '',
      'x',
      '42',
      'a|b',
      '|',
      'x|1',
      `${'A'.repeat(22)}|1`,
      '{"a":1}',
      '%d',
    ]) {
      it(`a foreign value may be anything: '${value}'`, async () => {
        const other = new PlainLock(redis, key, value)
        await other.tryAcquire(10_000)
        const mutex = create({ delay: 50 })
        expect(await mutex.tryAcquire(key)).to.equal(null)
        const waiter = mutex.acquireLock(key)
        await until(() => mutex.stats().waiting === 1)
        expect(await other.release()).to.equal(true)
        await (await waiter).release()
      })
    }
  })

  describe(`with the default keyPrefix, by way of ${client.name}`, () => {
    it('nothing is shared with foreign locks', async () => {
      const redis = client.create(sharedRedis().port)
      const mutex = new RedisMutex(client.create(sharedRedis().port))
      atEnd(() => mutex.close())
      const foreign = new PlainLock(redis, freshKey())
      const lock = await mutex.acquireLock(foreign.key)
      expect(await foreign.tryAcquire(10_000)).to.equal(true)
      expect(await mutex.tryAcquire(foreign.key)).to.equal(null)
      await lock.release()
      const again = await mutex.tryAcquire(foreign.key)
      expect(again).not.to.equal(null)
      expect(await foreign.release()).to.equal(true)
      await again?.release()
    })
  })
}

describe("with keyPrefix '', a foreign lock without an end", () => {
  const [client] = redisClients as [(typeof redisClients)[number]]
  let server: RedisServer

  before(async () => {
    server = await startRedis()
  })
  after(() => server.stop())

  it('is asked for by the delay, and had when it is released', async () => {
    const redis = client.create(server.port)
    const mutex = new RedisMutex(client.create(server.port), { keyPrefix: '' })
    atEnd(() => mutex.close())
    const foreign = new PlainLock(redis, freshKey())
    await mutex.runExclusive(foreign.key, () => {})
    await foreign.tryAcquireForEver()
    const tap = await Tap.open(client.create(server.port), server.port)
    const since = performance.now()
    const waiter = mutex.acquireLock(foreign.key)
    const asked = async () => (await tap.take()).filter(([name]) => name === 'evalsha').length
    // At once, again when the inbox is open, and then by the default delay of 500 ms.
    let asks = 0
    await until(async () => {
      asks += await asked()
      return asks >= 4
    })
    expect(performance.now() - since).to.be.at.least(990)
    expect(await foreign.release()).to.equal(true)
    await (await waiter).release()
  })
})
