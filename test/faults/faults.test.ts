import { setTimeout as sleep } from 'node:timers/promises'
import {
  type Lock,
  MutexLostError,
  MutexStoreError,
  MutexUnlockError,
  RedisMutex,
} from '@redismutex/core'
import { expect } from 'chai'
import type { Redis } from 'ioredis'
import { until } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'
import { redisClients } from '../support/clients.js'
import { startProxy, type TcpProxy } from '../support/proxy.js'
import { freshKey, type RedisServer, sharedRedis, startRedis } from '../support/redis.js'

const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => expect.fail('it did not fail'),
    (error: unknown) => error,
  )

for (const client of redisClients) {
  describe(`when the network or Redis fails, through ${client.name}`, () => {
    let direct: Redis
    let proxy: TcpProxy
    let key: string
    let mutex: RedisMutex
    let other: RedisMutex

    const options = { blockTime: 8000, delay: 400, expiry: 20_000, lease: 4000, storeTimeout: 500 }

    beforeEach(async () => {
      const { port } = sharedRedis()
      key = freshKey()
      proxy = await startProxy(port)
      direct = client.create(port)
      mutex = mutexAt(proxy.port)
      other = mutexAt(port)
      // Scripts and connections are there before anything is made to fail, however long that takes.
      for (const one of [mutex, other]) {
        await one.with({ storeTimeout: 10_000 }).runExclusive(freshKey(), () => {})
      }
    })

    function mutexAt(port: number, more: object = {}): RedisMutex {
      const created = new RedisMutex(client.create(port), { ...options, ...more })
      atEnd(() => created.close())
      return created
    }

    const lockName = (): string => `mutex:${key}`
    const queueName = (): string => `redismutex:queue:{mutex:${key}}`

    /** A lock of a process that has just opened its inbox. */
    async function listening(one: RedisMutex): Promise<Lock> {
      const inboxes = async () =>
        (await direct.pubsub('CHANNELS', 'redismutex:inbox:*')) as string[]
      const before = await inboxes()
      const ended = new AbortController()
      const lock = await one.acquireLock(`${key}:inbox`)
      const second = failure(one.acquireLock(`${key}:inbox`, { signal: ended.signal }))
      while ((await inboxes()).every((inbox) => before.includes(inbox))) await sleep(5)
      ended.abort()
      await second
      return lock
    }

    async function queued(count: number): Promise<void> {
      while ((await direct.zcard(queueName())) !== count) await sleep(5)
    }

    describe('a reply is lost', () => {
      it('of an acquire: the lock is had once, and can be given back', async () => {
        const lost = proxy.dropReplies(1)
        const lock = await mutex.acquireLock(key)
        await lost
        expect(await direct.get(lockName())).to.equal(lock.value)
        await lock.release()
        expect(await direct.exists(lockName(), queueName())).to.equal(0)
      })

      it('of a release: it has happened, and is no error', async () => {
        const lock = await mutex.acquireLock(key)
        const lost = proxy.dropReplies(1)
        await lock.release()
        await lost
        expect(await direct.exists(lockName())).to.equal(0)
      })

      it('of a release after which somebody else has come and gone: no error either', async () => {
        const lock = await mutex.acquireLock(key)
        const next = other.acquireLock(key)
        await queued(1)
        const lost = proxy.dropReplies(1)
        const released = lock.release()
        await (await next).release()
        await other.runExclusive(key, () => {})
        await lost
        await released
      })
    })

    describe('the connection breaks', () => {
      it('while waiting: the lock comes all the same', async () => {
        const held = await other.acquireLock(key)
        const waiting = mutex.acquireLock(key)
        await queued(1)
        proxy.cut()
        await held.release()
        await (await waiting).release()
        expect(await direct.exists(lockName(), queueName())).to.equal(0)
      })

      it('of the subscriber: the next grant is found by asking, and by coming back', async () => {
        const held = await other.acquireLock(key)
        const waiting = mutex.acquireLock(key)
        await queued(1)
        await direct.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
        await held.release()
        await (await waiting).release()
      })

      describe('half open, for the subscriber alone', () => {
        let deaf: RedisMutex

        beforeEach(async () => {
          const redis = client.create(sharedRedis().port)
          redis.duplicate = (override) => client.create(proxy.port, override)
          deaf = new RedisMutex(redis, options)
          atEnd(() => deaf.close())
          await deaf.runExclusive(freshKey(), () => {})
        })

        it('a waiter finds its grant by asking', async () => {
          const held = await other.acquireLock(key)
          const waiting = deaf.acquireLock(key)
          await queued(1)
          proxy.pause()
          await held.release()
          await (await waiting).release()
        })

        for (const [when, terms] of [
          ['before it is ready', {}],
          ['later, though its client gives commands up', { commandTimeout: 500 }],
        ] as const) {
          it(`${when}: a waiter is told by another connection`, async () => {
            const redis = client.create(sharedRedis().port)
            const ways = [proxy.port, sharedRedis().port]
            redis.duplicate = (override) =>
              client.create(ways.shift() as number, { ...override, ...terms })
            const patient = { ...options, delay: 9000, blockTime: 15_000, storeTimeout: 5000 }
            const mine = new RedisMutex(redis, patient)
            atEnd(() => mine.close())
            if (when !== 'before it is ready') await (await listening(mine)).release()
            proxy.pause()
            const held = await other.acquireLock(key)
            const waiting = mine.acquireLock(key)
            waiting.catch(() => {})
            await queued(1)
            await until(() => ways.length === 0)
            await held.release()
            const lock = await waiting
            expect(lock.waited, 'before it asks again').to.be.below(9000)
            await lock.release()
          })
        }

        it('a busy process does not keep the lock to itself for long', async () => {
          let busy = true
          const working = Array.from({ length: 3 }, async () => {
            while (busy) await deaf.runExclusive(key, () => sleep(1))
          })
          while (proxy.connections === 0) await sleep(5)
          proxy.pause()
          await (await other.acquireLock(key)).release()
          await (await other.acquireLock(key)).release()
          busy = false
          await Promise.all(working)
        })
      })
    })

    describe('Redis does not answer', () => {
      it('fails all who waited when it was asked, at once and together', async () => {
        proxy.pause()
        const began = performance.now()
        const errors = await Promise.all(
          Array.from({ length: 5 }, () => failure(mutex.acquireLock(key))),
        )
        for (const error of errors) {
          expect(error).to.be.instanceOf(MutexStoreError)
          expect((error as MutexStoreError).message).to.include('did not answer within 500 ms')
        }
        // One storeTimeout for all, and not one after the other.
        expect(performance.now() - began).to.be.below(5 * 500)
        proxy.resume()
      })

      it('takes back what it executes after it was given up', async () => {
        proxy.pause()
        await failure(mutex.acquireLock(key))
        proxy.resume()
        // The acquire lands first, then what undoes it.
        await (await other.acquireLock(key)).release()
        while (await direct.exists(lockName(), queueName())) await sleep(5)
      })

      it('serves those who come after', async () => {
        proxy.pause()
        await failure(mutex.acquireLock(key))
        const later = mutex.acquireLock(key)
        proxy.resume()
        await (await later).release()
      })

      it('aborts the signal of what is held no later than the lease’s end', async () => {
        const short = mutexAt(proxy.port, { lease: 1500 })
        const lock = await short.acquireLock(key)
        proxy.pause('requests')
        await new Promise((resolve) => lock.signal.addEventListener('abort', resolve))
        expect(lock.signal.reason).to.be.instanceOf(MutexLostError)
        // By its own clock: the lease in Redis has not been extended, and ends about now.
        expect(await direct.pttl(lockName())).to.be.below(1500)
        expect(await failure(lock.release())).to.be.instanceOf(MutexUnlockError)
        proxy.resume()
      })

      it('says within blockTime that the store is to blame, when that is shorter', async () => {
        proxy.pause()
        const error = await failure(mutex.acquireLock(key, { blockTime: 405 }))
        expect(error).to.be.instanceOf(MutexStoreError)
        proxy.resume()
      })

      it('reports a release that could not be made, and the lease or an undo ends it', async () => {
        const lock = await mutex.acquireLock(key)
        proxy.pause()
        expect(await failure(lock.release())).to.be.instanceOf(MutexStoreError)
        proxy.resume()
        await (await other.acquireLock(key)).release()
      })
    })

    describe('the lock is taken away', () => {
      it('by hand: the holder hears of it at the next renewal', async () => {
        const short = mutexAt(sharedRedis().port, { lease: 600, blockTime: 400, delay: 100 })
        const lock = await short.acquireLock(key)
        const aborted = new Promise((resolve) => lock.signal.addEventListener('abort', resolve))
        await direct.del(lockName())
        await aborted
        expect(lock.signal.reason).to.be.instanceOf(MutexLostError)
      })

      it('by another holder: release says so and leaves that one alone', async () => {
        const lock = await mutex.acquireLock(key)
        await direct.set(lockName(), 'another', 'PX', 5000)
        expect(await failure(lock.release())).to.be.instanceOf(MutexUnlockError)
        expect(await direct.get(lockName())).to.equal('another')
        await direct.del(lockName())
      })

      it('by hand while others wait in the process: each still holds alone, one after the other', async () => {
        const short = mutexAt(sharedRedis().port, { lease: 600, delay: 100, blockTime: 8000 })
        const first = await short.acquireLock(key)
        const second = short.acquireLock(key)
        await direct.del(lockName())
        const lock = await second
        expect(first.signal.aborted).to.equal(true)
        expect(lock.value).to.not.equal(first.value)
        await lock.release()
      })
    })

    it('passes no lock on whose lease is nearly over: its renewal might come too late', async () => {
      const slow = mutexAt(proxy.port, { blockTime: 900, delay: 400, expiry: 1000, lease: 1000 })
      await (await listening(slow)).release()
      proxy.delay(40)
      const first = await slow.acquireLock(key)
      const since = performance.now() - first.waited
      await sleep(since + 600 - performance.now())
      const second = slow.acquireLock(key)
      await sleep(since + 950 - performance.now())
      await first.release().catch(() => {})
      const lock = await second
      await sleep(200)
      expect(lock.signal.reason).to.equal(undefined)
      await lock.release()
    })

    it('goes on when the server has forgotten the scripts', async () => {
      const held = await other.acquireLock(key)
      const waiting = mutex.acquireLock(key)
      await queued(1)
      await direct.script('FLUSH')
      await held.release()
      const lock = await waiting
      await direct.script('FLUSH')
      await lock.release()
      expect(await direct.exists(lockName(), queueName())).to.equal(0)
    })

    describe('on a server of its own', () => {
      let server: RedisServer

      beforeEach(async () => {
        server = await startRedis()
        atEnd(() => server.stop())
      })

      it('comes back by itself after Redis was restarted empty, and says what was lost', async () => {
        const local = mutexAt(server.port, { lease: 1000, delay: 200 })
        const lock = await local.acquireLock(key)
        const lost = new Promise((resolve) => lock.signal.addEventListener('abort', resolve))
        await server.restart()
        await lost
        let next = await local.acquireLock(key).catch((error: unknown) => error)
        while (next instanceof MutexStoreError) {
          await sleep(50)
          next = await local.acquireLock(key).catch((error: unknown) => error)
        }
        await (next as Awaited<ReturnType<RedisMutex['acquireLock']>>).release()
      })

      it('works by asking where PUBLISH and SUBSCRIBE are refused, without starving a process', async () => {
        const admin = client.create(server.port)
        await admin.call('ACL', 'SETUSER', 'quiet', 'on', 'nopass', '~*', '+@all', 'resetchannels')
        const login = { username: 'quiet', password: 'x' }
        const members = [0, 1].map(() => {
          const created = new RedisMutex(client.create(server.port, login), {
            ...options,
            delay: 50,
          })
          atEnd(() => created.close())
          return created
        })
        // Each process has always somebody in line; both must get on.
        const until = performance.now() + 1500
        const counts = await Promise.all(
          members.map(async (member) => {
            let count = 0
            const one = async () => {
              while (performance.now() < until) {
                await member.runExclusive(key, () => sleep(1))
                count++
              }
            }
            await Promise.all([one(), one(), one()])
            return count
          }),
        )
        for (const count of counts) expect(count).to.be.above(0)
      })

      it('says what Redis says, at once, when it refuses', async () => {
        const admin = client.create(server.port)
        const local = mutexAt(server.port, { storeTimeout: 5000, blockTime: 6000, lease: 10_000 })
        await local.runExclusive(key, () => {})
        await admin.call('ACL', 'SETUSER', 'default', '-evalsha', '-eval')
        expect(await failure(local.acquireLock(key)))
          .to.be.instanceOf(MutexStoreError)
          .with.property('message')
          .that.matches(/NOPERM/)
        await admin.call('ACL', 'SETUSER', 'default', '+@all')
        await admin.config('SET', 'maxmemory', '1')
        expect(await failure(local.acquireLock(freshKey())))
          .to.be.instanceOf(MutexStoreError)
          .with.property('message')
          .that.matches(/OOM/)
      })
    })
  })
}
