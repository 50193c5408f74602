import { setTimeout as sleep } from 'node:timers/promises'
import { MutexStoreError, RedisMutex } from '@redismutex/core'
import { expect } from 'chai'
import type { Redis } from 'ioredis'
import { rejection, until } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'
import { redisClients } from '../support/clients.js'
import { startProxy } from '../support/proxy.js'
import { freshKey, type RedisServer, startRedis } from '../support/redis.js'
import { Wire } from './wire.js'

function busy(ms: number): void {
  const end = performance.now() + ms
  while (performance.now() < end);
}

for (const client of redisClients) {
  describe(`while Redis is out of reach, through ${client.name}`, () => {
    let server: RedisServer
    let redis: Redis

    beforeEach(async () => {
      server = await startRedis()
      atEnd(() => server.stop())
      // Nothing that is sent is given up by the client itself.
      redis = client.create(server.port, { maxRetriesPerRequest: null })
    })

    function mutexOn(options: object): RedisMutex {
      const mutex = new RedisMutex(redis, { blockTime: 15_000, ...options })
      atEnd(() => mutex.close())
      return mutex
    }

    async function refused(mutex: RedisMutex): Promise<string> {
      const error = await rejection(mutex.acquireLock(freshKey()))
      expect(error).to.be.instanceOf(MutexStoreError)
      return (error as Error).message
    }

    async function uses(mutex: RedisMutex): Promise<void> {
      await (await mutex.acquireLock(freshKey())).release()
    }

    /** The keys that have expired since. */
    async function expiries(): Promise<unknown[]> {
      const look = client.create(server.port)
      await look.config('SET', 'notify-keyspace-events', 'Ex')
      const expired: unknown[] = []
      look.on('message', (_channel, key) => expired.push(key))
      await look.subscribe('__keyevent@0__:expired')
      return expired
    }

    it('nothing is asked of it after a storeTimeout, so that nothing piles up', async () => {
      const mutex = mutexOn({ storeTimeout: 200 })
      await uses(mutex)
      await server.kill()
      let words = ''
      for (let tries = 0; tries < 1000 && !words.includes('out of reach'); tries++) {
        words = await refused(mutex)
      }
      expect(words).to.match(/the store is out of reach: .*ECONNREFUSED/)

      const wire = new Wire(redis)
      wire.keep('requests')
      const all = await Promise.all(Array.from({ length: 100 }, () => refused(mutex)))
      for (const words of all) expect(words).to.include('out of reach')
      const tried = await rejection(mutex.tryAcquire(freshKey()))
      expect(tried).to.be.instanceOf(MutexStoreError)
      expect(wire.kept).to.equal(0)
      wire.pass()

      await server.restart()
      let lock = null
      for (let tries = 0; tries < 1000 && lock === null; tries++) {
        lock = await mutex.acquireLock(freshKey()).catch(() => sleep(10, null))
      }
      expect(lock, 'served again by itself').to.not.equal(null)
      await lock?.release()
    })

    it('who comes late waits only for what is left of a storeTimeout', async () => {
      const mutex = mutexOn({ storeTimeout: 2000 })
      await uses(mutex)
      await server.kill()
      await sleep(700)
      const [, within] = /within (\d+) ms/.exec(await refused(mutex)) ?? ['', '0']
      expect(Number(within)).to.be.below(1700)
    })

    it('a stall of this process after a break is not taken for that', async () => {
      const proxy = await startProxy(server.port)
      redis = client.create(proxy.port)
      const mutex = mutexOn({ storeTimeout: 1000 })
      await uses(mutex)
      const asked = new Promise<void>((resolve, reject) => {
        redis.once('close', () => {
          busy(1200)
          uses(mutex).then(resolve, reject)
        })
      })
      proxy.cut()
      await asked
    })

    it('nor is one after an attempt to reconnect that has failed', async () => {
      const proxy = await startProxy(server.port)
      redis = client.create(proxy.port)
      const mutex = mutexOn({ storeTimeout: 1000 })
      await uses(mutex)
      let breaks = 0
      const asked = new Promise<void>((resolve, reject) => {
        redis.on('close', () => {
          if (++breaks !== 2) return
          const use = () => {
            busy(1200)
            return uses(mutex)
          }
          proxy.accept().then(use).then(resolve, reject)
        })
      })
      proxy.refuse()
      proxy.cut()
      await asked
    })

    it('who tries again without a pause keeps nothing else from happening', async () => {
      const mutex = mutexOn({ storeTimeout: 200 })
      await uses(mutex)
      await server.kill()
      setTimeout(() => void server.restart(), 500)
      await triesUntilServed(mutex)
    })

    it('nor does one whose client refuses at once what is asked meanwhile', async () => {
      redis = client.create(server.port, { enableOfflineQueue: false })
      await until(() => redis.status === 'ready')
      const mutex = mutexOn({ storeTimeout: 200 })
      await uses(mutex)
      await server.kill()
      setTimeout(() => void server.restart(), 500)
      await until(() => redis.status !== 'ready')
      await triesUntilServed(mutex)
    })

    it('nor does one whose client has been closed', async () => {
      const mutex = mutexOn({ storeTimeout: 200 })
      await uses(mutex)
      redis.disconnect()
      await until(() => redis.status === 'end')
      setTimeout(() => void redis.connect(), 100)
      await triesUntilServed(mutex)
    })

    async function triesUntilServed(mutex: RedisMutex): Promise<void> {
      let tries = 0
      let served = false
      while (!served && tries < 20_000) {
        tries++
        served = await uses(mutex).then(
          () => true,
          () => false,
        )
      }
      expect(served, `after ${tries} tries`).to.equal(true)
    }

    it('what its client has given up, and sends after a long outage, is taken back', async () => {
      const proxy = await startProxy(server.port)
      const terms = { maxRetriesPerRequest: null, retryStrategy: () => 1000 }
      redis = client.create(proxy.port, terms)
      const mutex = mutexOn({ storeTimeout: 200, blockTime: 300, delay: 150, lease: 1500 })
      await uses(mutex)
      const expired = await expiries()
      proxy.refuse()
      proxy.cut()
      await until(() => redis.status === 'reconnecting')
      redis.options.commandTimeout = 50
      const asked: Promise<string>[] = []
      for (let n = 0; n < 5; n++) {
        asked.push(refused(mutex))
        // Not in one call.
        await sleep(5)
      }
      for (const words of await Promise.all(asked)) expect(words).to.include('timed out')
      delete redis.options.commandTimeout
      await sleep(3500)
      await proxy.accept()
      await until(() => redis.status === 'ready')
      await sleep(2000)
      expect(expired).to.deep.equal([])
    })

    it('so is what was on its way, though it refuses at once what is asked meanwhile', async () => {
      const proxy = await startProxy(server.port)
      const terms = { maxRetriesPerRequest: null, retryStrategy: () => 1000 }
      redis = client.create(proxy.port, { ...terms, enableOfflineQueue: false })
      await until(() => redis.status === 'ready')
      const mutex = mutexOn({ storeTimeout: 1000, blockTime: 1100, delay: 500, lease: 1500 })
      await uses(mutex)
      const held = await mutex.with({ lease: 15_000, expiry: 20_000 }).acquireLock(freshKey())
      const expired = await expiries()
      redis.options.commandTimeout = 300
      proxy.pause('requests')
      const asked = refused(mutex)
      await sleep(20)
      proxy.refuse()
      proxy.cut()
      await until(() => redis.status === 'reconnecting')
      expect(await asked).to.include('timed out')
      delete redis.options.commandTimeout
      expect(await rejection(held.release())).to.be.instanceOf(MutexStoreError)
      await sleep(4500)
      proxy.resume()
      await proxy.accept()
      await until(() => redis.status === 'ready')
      await sleep(2000)
      expect(expired).to.deep.equal([])
    })

    it('those in line stay there when their inbox is connected again first', async () => {
      redis.options.retryStrategy = () => 50
      const other = client.create(server.port)
      const key = freshKey()
      await other.set(`mutex:${key}`, 'somebody else', 'PX', 25_000)
      const mutex = mutexOn({ storeTimeout: 1000, delay: 8000, expiry: 30_000, lease: 25_000 })
      await uses(mutex)
      const wire = new Wire(redis)
      const waiter = mutex.acquireLock(key)
      // Who waits asks again once the inbox is connected. An ask on its way may fail with the server.
      await until(() => wire.answered === 2)
      redis.options.retryStrategy = () => 800
      await server.kill()
      await sleep(1200)
      await server.restart()
      await (await waiter).release()
    })

    it('a client that has ended, and is connected once more, is given its time', async () => {
      redis.options.retryStrategy = (times) => (times > 3 ? null : 50)
      const mutex = mutexOn({ storeTimeout: 300 })
      await uses(mutex)
      await server.kill()
      await until(() => redis.status === 'end')
      await sleep(300)
      await server.restart()
      const connected = redis.connect()
      await uses(mutex)
      await connected
    })
  })
}
