import { setTimeout as sleep } from 'node:timers/promises'
import { type Lock, MutexExpiredError, RedisMutex, type RedisMutexOptions } from '@redismutex/core'
import { expect } from 'chai'
import type { Redis } from 'ioredis'
import { namesOf } from '../../packages/core/src/stores/redis/names.js'
import { scripts } from '../../packages/core/src/stores/redis/scripts.js'
import { aborted, range, rejection, until } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'
import { redisClients } from '../support/clients.js'
import { freshKey, type RedisServer, startRedis } from '../support/redis.js'
import { Tap } from './tap.js'

/** Has Redis remember all scripts. */
async function learnScripts(redis: Redis): Promise<void> {
  for (const { text } of Object.values(scripts)) await redis.script('LOAD', text)
}

for (const client of redisClients) {
  describe(`what is sent to Redis by way of ${client.name}`, () => {
    let server: RedisServer
    let redis: Redis
    let key: string
    let tap: Tap

    // A server of its own, so that nobody else's commands are counted.
    before(async () => {
      server = await startRedis()
    })
    after(() => server.stop())

    beforeEach(async () => {
      redis = client.create(server.port)
      key = freshKey()
      await learnScripts(redis)
      tap = await Tap.open(client.create(server.port), server.port)
    })

    function create(options?: RedisMutexOptions, connection = redis): RedisMutex {
      const mutex = new RedisMutex(connection, options)
      atEnd(() => mutex.close())
      return mutex
    }

    /** Nothing that others say is missed from now on, for the next seconds. */
    async function openInbox(): Promise<void> {
      const elsewhere = create({}, client.create(server.port))
      const holder = await elsewhere.acquireLock(`${key}:inbox`)
      const waiter = create({ blockTime: 15_000, delay: 12_000, expiry: 20_000 }).acquireLock(
        `${key}:inbox`,
      )
      await tap.told('subscribe')
      await holder.release()
      await (await waiter).release()
      await tap.take()
    }

    it('is one command for an acquisition and one for a release', async () => {
      const mutex = create()
      const lock = await mutex.acquireLock(key)
      expect(await tap.names()).to.deep.equal(['evalsha'])
      await lock.release()
      expect(await tap.names()).to.deep.equal(['evalsha'])
    })

    it('is one command for a try, and none for one that is refused here', async () => {
      const mutex = create()
      const lock = await mutex.tryAcquire(key)
      expect(await tap.names()).to.deep.equal(['evalsha'])
      expect(await mutex.tryAcquire(key)).to.equal(null)
      expect(await tap.names()).to.deep.equal([])
      await lock?.release()
    })

    it('is one command for the acquisitions of one moment, and one for their releases', async () => {
      const mutex = create()
      const locks = await Promise.all(range(50).map((n) => mutex.acquireLock(`${key}:${n}`)))
      expect(await tap.names()).to.deep.equal(['evalsha'])
      await Promise.all(locks.map((lock) => lock.release()))
      expect(await tap.names()).to.deep.equal(['evalsha'])
    })

    it('is two commands for more, so that Redis is at work while the first answers are read', async () => {
      const mutex = create()
      const locks = await Promise.all(range(64).map((n) => mutex.acquireLock(`${key}:${n}`)))
      const items = (await tap.take()).map((args) => (Number(args[2]) - 1) / 2)
      expect(items).to.deep.equal([32, 32])
      await Promise.all(locks.map((lock) => lock.release()))
    })

    /** Each in a callback of its own, all in one turn of the event loop, in which Redis does not answer. */
    async function inOneTurn(things: readonly (() => void)[]): Promise<void> {
      server.pause()
      for (const thing of things) setImmediate(thing)
      await new Promise((resolve) => setImmediate(resolve))
      await new Promise((resolve) => setImmediate(resolve))
      server.resume()
    }

    it('is one command for the acquisitions of one turn of the event loop after the first, and one for their releases', async () => {
      const mutex = create({ storeTimeout: 15_000 })
      const locks: Promise<Lock>[] = []
      const ask = (n: number) => () => void locks.push(mutex.acquireLock(`${key}:${n}`))
      await inOneTurn(range(50).map(ask))
      const held = await Promise.all(locks)
      expect(await tap.names()).to.deep.equal(['evalsha', 'evalsha'])
      const releases: Promise<void>[] = []
      await inOneTurn(held.map((lock) => () => void releases.push(lock.release())))
      await Promise.all(releases)
      expect(await tap.names()).to.deep.equal(['evalsha', 'evalsha'])
    })

    it('is a release at once, in the middle of such a turn, when another process waits', async () => {
      const mutex = create({ storeTimeout: 15_000 })
      const elsewhere = () => create({}, client.create(server.port))
      const holder = await elsewhere().acquireLock(key)
      const waiter = mutex.acquireLock(key)
      await tap.told('subscribe')
      const next = elsewhere().acquireLock(key)
      await until(async () => (await redis.zcard(namesOf(`mutex:${key}`, '').queue)) === 2)
      await holder.release()
      const lock = await waiter
      // Its renewal has been answered then.
      await redis.ping()
      await tap.take()
      const all: Promise<unknown>[] = []
      const ask = (n: number) => () => void all.push(mutex.acquireLock(`${key}:${n}`))
      await inOneTurn([ask(1), ask(2), () => void all.push(lock.release()), ask(3), ask(4)])
      await (await next).release()
      await Promise.all(all)
      const sent = (await tap.take()).map((args) =>
        args
          .filter((arg) => arg.startsWith(`mutex:${key}`))
          .map((arg) => arg.slice(6 + key.length)),
      )
      const first = sent.findIndex(([name]) => name === ':1')
      expect(sent.slice(first, first + 4)).to.deep.equal([[':1'], [''], [':2'], [':3', ':4']])
    })

    it('is a release at once when its lease may end in a long turn', async () => {
      const mutex = create({ storeTimeout: 15_000, blockTime: 15_000 })
      const lock = await create({ blockTime: 900, expiry: 1000 }).acquireLock(key)
      await tap.take()
      const all: Promise<unknown>[] = []
      const ask = (n: number) => () => void all.push(mutex.acquireLock(`${key}:${n}`))
      await inOneTurn([ask(1), ask(2), () => void all.push(lock.release().catch(() => {})), ask(3)])
      await Promise.all(all)
      const sent = (await tap.take()).map((args) =>
        args.filter((arg) => arg.startsWith(`mutex:${key}`)),
      )
      expect(sent.map((names) => names.map((name) => name.slice(6 + key.length)))).to.deep.equal([
        [':1'],
        [''],
        [':2'],
        [':3'],
      ])
    })

    it('is never more than 128 acquisitions or releases in one command', async () => {
      const mutex = create()
      const locksIn = (args: string[]) =>
        args.filter((arg) => arg.startsWith(`mutex:${key}`)).length
      const locks = await Promise.all(range(300).map((n) => mutex.acquireLock(`${key}:${n}`)))
      const acquired = await tap.take()
      expect(acquired.map(locksIn)).to.deep.equal([128, 128, 44])
      await Promise.all(locks.map((lock) => lock.release()))
      const released = await tap.take()
      expect(released.map(locksIn)).to.deep.equal([128, 128, 44])
    })

    it('is nothing for the hand-overs between 64 waiters of a process', async () => {
      const mutex = create()
      await openInbox()
      const lock = await mutex.acquireLock(key)
      let turns = 0
      const waiters = range(64).map(() =>
        mutex.runExclusive(key, () => {
          turns++
        }),
      )
      await tap.take()
      await lock.release()
      await Promise.all(waiters)
      expect(turns).to.equal(64)
      // The last of them gives the lock back.
      const names = await tap.names()
      expect(names.filter((name) => name !== 'subscribe')).to.deep.equal(['evalsha'])
    })

    it('is no renewal when the lease lasts for the expiry', async () => {
      const lock = await create({ blockTime: 500, expiry: 600 }).acquireLock(key)
      await tap.take()
      expect(await aborted(lock.signal)).to.be.instanceOf(MutexExpiredError)
      await rejection(lock.release())
      // What was over is given back.
      expect(await tap.names()).to.deep.equal(['evalsha'])
    })

    it('is one renewal, that makes the lease of a pushed grant whole', async () => {
      const holder = await create({}, client.create(server.port)).acquireLock(key)
      const mutex = create({ blockTime: 500, expiry: 600 })
      const waiter = mutex.acquireLock(key)
      await tap.told('subscribe')
      await holder.release()
      const lock = await waiter
      await tap.take()
      expect(await aborted(lock.signal)).to.be.instanceOf(MutexExpiredError)
      await rejection(lock.release())
      const names = await tap.names()
      expect(names.filter((name) => name !== 'subscribe')).to.deep.equal(['evalsha'])
    })

    it('is one command for the renewals of many locks', async () => {
      const mutex = create({ expiry: Number.POSITIVE_INFINITY, lease: 800 })
      const locks = await Promise.all(range(30).map((n) => mutex.acquireLock(`${key}:${n}`)))
      await tap.take()
      await tap.told('evalsha')
      const [renewal, ...others] = await tap.take()
      // A lock and its queue each, and the fence.
      expect(renewal?.[2]).to.equal('61')
      expect(others).to.deep.equal([])
      await Promise.all(locks.map((lock) => lock.release()))
    })

    it('is a poll after each delay for a process that waits, and not more', async () => {
      const holder = await create().acquireLock(key)
      const waiter = create({ blockTime: 500, delay: 110 }, client.create(server.port))
      await tap.take()
      await rejection(waiter.acquireLock(key))
      await waiter.close()
      const polls = (await tap.take()).filter(([name]) => name === 'evalsha')
      // The first, four polls, one more when the inbox is open, and the cancellation.
      expect(polls.length).to.be.within(3, 7)
      await holder.release()
    })
  })
}

describe('what is sent to Redis with the default options', () => {
  const [client] = redisClients as [(typeof redisClients)[number]]
  let server: RedisServer
  let mutex: RedisMutex

  before(async () => {
    server = await startRedis()
  })
  after(() => server.stop())

  beforeEach(() => {
    mutex = new RedisMutex(client.create(server.port))
    atEnd(() => mutex.close())
  })

  it('is nothing while nobody waits, whether a lock is held or not', async () => {
    const lock = await mutex.acquireLock(freshKey())
    await mutex.runExclusive(freshKey(), () => {})
    const tap = await Tap.open(client.create(server.port), server.port)
    await sleep(1100)
    expect(await tap.names()).to.deep.equal([])
    await lock.release()
  })

  it('is no renewal in 7 s of holding, and no check of the inbox when nobody has waited for long', async () => {
    const key = freshKey()
    const first = await mutex.acquireLock(key)
    const second = mutex.acquireLock(key)
    await first.release()
    await (await second).release()
    const tap = await Tap.open(client.create(server.port), server.port)
    const lock = await mutex.acquireLock(key)
    const since = performance.now()
    expect(await aborted(lock.signal)).to.be.instanceOf(MutexExpiredError)
    expect(performance.now() - since).to.be.within(6800, 12_000)
    await rejection(lock.release())
    const names = await tap.names()
    // The acquisition, and what gives the lock back; the inbox is checked for some 5 s.
    expect(names.filter((name) => name !== 'subscribe')).to.deep.equal(['evalsha', 'evalsha'])
    expect(names.length, names.join()).to.be.at.most(2 + 6)
  })
})
