import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  Mutex,
  MutexClosedError,
  MutexError,
  MutexExpiredError,
  MutexStoreError,
  memoryStore,
  RedisMutex,
} from '@redismutex/core'
import { expect } from 'chai'
import type { Redis } from 'ioredis'
import { scripts } from '../../packages/core/src/stores/redis/scripts.js'
import { aborted, range, rejection, stall, until } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'
import { type ClientOptions, redisClients } from '../support/clients.js'
import { startProxy } from '../support/proxy.js'
import { freshKey, sharedRedis, startRedis } from '../support/redis.js'
import { loseNext, Wire } from './wire.js'

const [client] = redisClients

describe('what happens at the same time', () => {
  let key: string
  let look: Redis

  beforeEach(() => {
    key = freshKey()
    look = client!.create(sharedRedis().port)
  })

  async function mutexOn(redis: Redis, options: object = {}): Promise<RedisMutex> {
    const mutex = new RedisMutex(redis, { blockTime: 15_000, expiry: 20_000, ...options })
    atEnd(() => mutex.close())
    await mutex.runExclusive(freshKey(), () => {})
    return mutex
  }

  /** A mutex whose script calls can be kept waits for the lock that another one holds. */
  async function waitingBehind(options: object, signal?: AbortSignal) {
    const redis = create()
    const wire = new Wire(redis)
    const mutex = await mutexOn(redis, options)
    const other = await mutexOn(create())
    const held = await other.acquireLock(key)
    const { answered } = wire
    const waiting = mutex.acquireLock(key, { signal })
    // It asks, and once more when its inbox is open.
    await until(() => wire.answered >= answered + 2)
    return { wire, mutex, other, held, waiting }
  }

  const create = (): Redis => client!.create(sharedRedis().port)
  const queued = (count: number) =>
    until(async () => (await look.zcard(`redismutex:queue:{mutex:${key}}`)) === count)

  it('a stall for longer than blockTime: no timer is set for a time that is over, which Node.js warns of', async () => {
    const mutex = await mutexOn(create(), { blockTime: 300, storeTimeout: 300, delay: 100 })
    const held = await (await mutexOn(create())).acquireLock(key)
    const delays: unknown[] = []
    const { setTimeout } = globalThis
    const noting = ((callback: () => void, ms?: number, ...rest: []) => {
      delays.push(ms)
      return setTimeout(callback, ms, ...rest)
    }) as typeof setTimeout
    globalThis.setTimeout = noting
    try {
      const refused = rejection(mutex.acquireLock(key))
      // It has been sent by then.
      setImmediate(() => stall(400))
      expect(await refused).to.be.instanceOf(MutexError)
    } finally {
      globalThis.setTimeout = setTimeout
    }
    expect(delays).to.not.have.length(0)
    expect(delays.filter((ms) => Number(ms) < 0)).to.deep.equal([])
    await held.release()
  })

  it('a release of a lock that was passed on: it has its own holder’s storeTimeout', async () => {
    const redis = create()
    const wire = new Wire(redis)
    const hasty = await mutexOn(redis, { storeTimeout: 100 })
    const patient = hasty.with({ storeTimeout: 10_000 })
    for (const [first, next] of [
      [hasty, patient],
      [patient, hasty],
    ] as const) {
      const held = await first.acquireLock(key)
      const waiting = next.acquireLock(key)
      await held.release()
      const lock = await waiting
      wire.keep('replies')
      const released = lock.release().catch((error: unknown) => error)
      const first300 = await Promise.race([released, sleep(300).then(() => 'under way')])
      if (next === hasty) expect(first300).to.be.instanceOf(MutexStoreError)
      else expect(first300).to.equal('under way')
      wire.pass()
      await released
    }
  })

  it('expiry: the next holder, to whom the lock passed for that, is timed as well', async () => {
    const mutex = new Mutex(memoryStore(), { blockTime: 90, expiry: 100 })
    const patient = mutex.with({ blockTime: 5000, expiry: 5100 })
    const first = await mutex.acquireLock(key)
    const second = mutex.with({ expiry: 120, blockTime: 119 }).acquireLock(key)
    const third = patient.acquireLock(key)
    expect(await aborted(first.signal)).to.be.instanceOf(MutexExpiredError)
    expect(await aborted((await second).signal)).to.be.instanceOf(MutexExpiredError)
    await (await third).release()
  })

  it('a loss that is heard of when an expiry has ended in a stall: what is not ours goes to nobody here', async () => {
    const redis = create()
    const wire = new Wire(redis)
    const mutex = await mutexOn(redis, { lease: 2000 })
    const brief = mutex.with({ blockTime: 200, delay: 50, expiry: 250, lease: 250 })
    await look.script('LOAD', scripts.renew.text)
    // It is told of others, so that it passes locks on.
    const told = await mutex.acquireLock(`${key}:told`)
    const waiting = mutex.acquireLock(`${key}:told`)
    await until(() => mutex.store.listeningSince < Number.POSITIVE_INFINITY)
    void told.release()
    await (await waiting).release()
    const first = await mutex.acquireLock(key)
    await look.set(`mutex:${key}`, 'a stranger', 'PX', 3000)
    wire.keep('replies')
    await until(() => wire.kept === 1)
    wire.keepNoMore()
    const second = brief.acquireLock(key)
    let isHeld = false
    const third = mutex.acquireLock(key).then((lock) => {
      isHeld = true
      return lock
    })
    void first.release()
    await second
    stall(260)
    wire.pass()
    await new Promise(setImmediate)
    expect(isHeld, 'held by a stranger').to.equal(false)
    await look.del(`mutex:${key}`)
    await (await third).release()
  })

  it('a grant by push that was long on its way: it is over, and is asked for again', async () => {
    const proxy = await startProxy(sharedRedis().port)
    const redis = create()
    redis.duplicate = (override) => client!.create(proxy.port, override)
    const mutex = await mutexOn(redis, { delay: 12_000, lease: 300 })
    const [first, third] = [await mutexOn(create()), await mutexOn(create())]
    const held = await first.acquireLock(key)
    let came = false
    const waiting = mutex.acquireLock(key).finally(() => {
      came = true
    })
    await until(() => mutex.store.listeningSince < Number.POSITIVE_INFINITY)
    await queued(1)
    proxy.pause('replies')
    await held.release()
    await until(async () => (await look.exists(`mutex:${key}`)) === 0)
    const other = await third.acquireLock(key)
    proxy.resume()
    await until(async () => came || (await look.zcard(`redismutex:queue:{mutex:${key}}`)) === 1)
    expect(came).to.equal(false)
    await other.release()
    await (await waiting).release()
  })

  it('a renewal whose answer is late: the lease counts from when it was sent', async () => {
    const redis = create()
    const wire = new Wire(redis)
    const mutex = await mutexOn(redis, { lease: 1000 })
    const lock = await mutex.acquireLock(key)
    wire.keep('replies')
    await until(() => wire.kept === 1)
    await sleep(200)
    wire.pass()
    // The last one that arrives.
    wire.keep('requests')
    await aborted(lock.signal)
    expect(await look.exists(`mutex:${key}`)).to.equal(1)
    wire.pass()
  })

  it('a loss: its listener may ask for the key again', async () => {
    const mutex = await mutexOn(create(), { lease: 300, delay: 50 })
    const lock = await mutex.acquireLock(key)
    const again = new Promise((resolve) => {
      lock.signal.addEventListener('abort', () => resolve(mutex.acquireLock(key)))
    })
    await look.del(`mutex:${key}`)
    const next = (await again) as Awaited<ReturnType<RedisMutex['acquireLock']>>
    expect(await look.get(`mutex:${key}`)).to.equal(next.value)
    await next.release()
    expect(await look.exists(`mutex:${key}`)).to.equal(0)
  })

  it('a grant by push while the ask is given up: the ask leaves no lock behind when it lands', async () => {
    const { wire, other, held, waiting } = await waitingBehind({ storeTimeout: 300, delay: 50 })
    await queued(1)
    // The next time it asks, that is kept; the grant comes meanwhile, and its renewal passes.
    wire.keep('requests')
    await until(() => wire.kept === 1)
    wire.keepNoMore()
    await held.release()
    const lock = await waiting
    // The kept ask is given up while the lock is held.
    await new Promise((resolve) => setTimeout(resolve, 350))
    await lock.release()
    wire.pass()
    await (await other.acquireLock(key, { blockTime: 3000 })).release()
  })

  it('a late reply to an ask while the lock goes back: it was held to the end', async () => {
    const options = { delay: 50, storeTimeout: 10_000 }
    const { wire, mutex, other, held, waiting } = await waitingBehind(options)
    await queued(1)
    // It has asked once more, but hears of that only after its grant, and its release is slow.
    wire.keep('replies')
    await until(() => wire.kept === 1)
    wire.keepNoMore()
    await held.release()
    const lock = await waiting
    wire.keep('requests')
    const released = lock.release()
    await until(() => wire.kept === 2)
    wire.keepNoMore()
    wire.passOne(0)
    const { answered } = wire
    await until(() => wire.answered > answered)
    // What takes a late grant back would have come first.
    await mutex.runExclusive(freshKey(), () => {})
    wire.pass()
    await released
    await until(async () => (await look.exists(`mutex:${key}`)) === 0)
    await (await other.acquireLock(key, { blockTime: 3000 })).release()
  })

  it('a release that is long on its way: the lease that ends there was long enough', async () => {
    const { wire, held, waiting } = await waitingBehind({ delay: 600, storeTimeout: 10_000 })
    // The grant is a claim for a second, and nothing comes through that would make it last.
    wire.keep('requests')
    await held.release()
    const released = (await waiting).release()
    await until(async () => (await look.exists(`mutex:${key}`)) === 0)
    wire.pass()
    await released
  })

  it('a grant by push before the subscription: it is asked for as soon as the reply is there', async () => {
    const redis = create()
    const wire = new Wire(redis)
    const mutex = await mutexOn(redis, { delay: 10_000 })
    const other = await mutexOn(create())
    const held = await other.acquireLock(key)
    const before = await inboxes()
    wire.keep('replies')
    const waiting = mutex.acquireLock(key)
    await queued(1)
    await held.release()
    // Its inbox was not open yet, so the grant is lost. A second waiter opens it.
    const second = mutex.acquireLock(key)
    await until(async () => (await inboxes()) > before)
    wire.pass()
    const lock = await waiting
    expect(lock.waited).to.be.below(10_000)
    await lock.release()
    await (await second).release()
  })

  async function inboxes(): Promise<number> {
    const channels = (await look.pubsub('CHANNELS', 'redismutex:inbox:*')) as string[]
    return channels.length
  }

  it('a word of contention before the subscription: the other process gets its turn', async () => {
    const busy = await mutexOn(create(), { delay: 10_000 })
    const other = await mutexOn(create(), { delay: 10_000 })
    const first = await busy.acquireLock(key)
    const waiting = other.acquireLock(key)
    await queued(1)
    let working = true
    const workers = Array.from({ length: 4 }, async () => {
      while (working) await busy.runExclusive(key, () => new Promise((done) => setTimeout(done, 1)))
    })
    await first.release()
    const lock = await waiting
    expect(lock.waited, 'before it would have asked again').to.be.below(10_000)
    await lock.release()
    working = false
    await Promise.all(workers)
  })

  it('a failed ask: who came after it was sent is asked for anew', async () => {
    const redis = create()
    const wire = new Wire(redis)
    const mutex = await mutexOn(redis, { storeTimeout: 300 })
    wire.keep('requests')
    const early = rejection(mutex.acquireLock(key))
    await until(() => wire.kept === 1)
    await new Promise((resolve) => setTimeout(resolve, 20))
    const late = mutex.acquireLock(key)
    wire.keepNoMore()
    expect(await early).to.have.property('code', 'ERR_MUTEX_STORE')
    await (await late).release()
    wire.pass()
  })

  describe('close, and the client with it', () => {
    for (const end of ['quit', 'disconnect'] as const) {
      it(`while the ask is on its way: nothing is left (${end})`, async () => {
        const redis = create()
        const mutex = await mutexOn(redis)
        const asked = rejection(mutex.acquireLock(key))
        await mutex.close()
        await redis[end]()
        expect(await asked).to.be.instanceOf(MutexClosedError)
        expect(await look.exists(`mutex:${key}`)).to.equal(0)
      })
    }

    it('while its inbox subscribes once more, after a break: no rejection is left unhandled', async () => {
      const proxy = await startProxy(sharedRedis().port)
      const redis = client!.create(proxy.port)
      let inbox: Redis | undefined
      const duplicate = redis.duplicate.bind(redis)
      redis.duplicate = (override) => {
        inbox = duplicate(override)
        return inbox
      }
      const mutex = await mutexOn(redis)
      const held = await mutex.acquireLock(key)
      const waiting = mutex.acquireLock(key)
      await until(() => mutex.store.listeningSince < Number.POSITIVE_INFINITY)
      await held.release()
      await (await waiting).release()
      proxy.cut()
      await new Promise<void>((resolve) => {
        inbox?.once('ready', () => {
          proxy.pause('replies')
          resolve()
        })
      })
      const closed = mutex.close()
      await until(() => inbox?.status !== 'ready')
      proxy.cut()
      proxy.resume()
      await closed
      await until(() => inbox?.status === 'end')
    })

    it('while a hand-over waits for its turn of the event loop: nothing is left', async () => {
      const redis = create()
      const mutex = await mutexOn(redis)
      const first = await mutex.acquireLock(key)
      const rest = Array.from({ length: 5 }, () =>
        mutex.acquireLock(key).then(
          (lock) => {
            const until = performance.now() + 3
            while (performance.now() < until);
            return lock.release().catch(() => {})
          },
          () => {},
        ),
      )
      await first.release()
      await mutex.close()
      redis.disconnect()
      await Promise.all(rest)
      expect(await look.exists(`mutex:${key}`)).to.equal(0)
    })
  })

  it('one who asks seldom, and whose inbox is half open after a while: it is replaced, and tells of the grant', async () => {
    const options = { delay: 18_000, blockTime: 19_000, lease: 19_000 }
    const proxy = await startProxy(sharedRedis().port)
    const redis = create()
    let made = 0
    redis.duplicate = (override) =>
      client!.create(made++ === 0 ? proxy.port : sharedRedis().port, override)
    const [mutex, other] = [await mutexOn(redis, options), await mutexOn(create(), options)]
    const held = await other.acquireLock(key)
    const waiting = mutex.acquireLock(key)
    await queued(1)
    await sleep(5500)
    proxy.pause()
    await until(() => made === 2)
    await until(() => mutex.store.listeningSince < Number.POSITIVE_INFINITY)
    await held.release()
    const lock = await waiting
    expect(lock.waited, 'it was told').to.be.below(18_000)
    await lock.release()
  })

  /** Two processes, one of which is to have an ask sent again after a break, and come once more. */
  async function apart(settings: ClientOptions = {}) {
    const proxy = await startProxy(sharedRedis().port)
    const redis = client!.create(proxy.port, settings)
    const options = { lease: 19_000, delay: 300 }
    const [mutex, other] = [await mutexOn(redis, options), await mutexOn(create(), options)]
    const loseAsk = (after?: number) => loseNext(redis, scripts.acquire.sha, proxy, after)
    return { redis, mutex, other, loseAsk }
  }

  /** What has come once more got the lock. */
  async function landed(again: (by: Redis) => Promise<unknown>): Promise<void> {
    expect(Number(await again(look)), 'its token').to.be.above(0)
  }

  it('an ask that comes once more, after the release: who waits for that lock is not left waiting', async () => {
    const { mutex, other, loseAsk } = await apart()
    const again = loseAsk()
    await (await mutex.acquireLock(key)).release()
    // It is told of those who wait.
    const inbox = await other.acquireLock(`${key}:inbox`)
    const waiting = mutex.acquireLock(`${key}:inbox`)
    await until(async () => (await look.zcard(`redismutex:queue:{mutex:${key}:inbox}`)) === 1)
    await inbox.release()
    await (await waiting).release()
    await landed(again)
    const lock = await other.acquireLock(key)
    expect(lock.waited, 'not a whole lease').to.be.below(10_000)
    await lock.release()
  })

  it('an ask that comes once more, after the release, where nobody has ever waited: nobody waits for a whole lease', async () => {
    const { mutex, other, loseAsk } = await apart()
    const again = loseAsk()
    await (await mutex.acquireLock(key)).release()
    await landed(again)
    const lock = await other.acquireLock(key)
    expect(lock.waited, 'not a whole lease').to.be.below(5000)
    await lock.release()
  })

  it('an ask that comes once more, after the release, where others only try: they get the lock soon', async () => {
    const { mutex, other, loseAsk } = await apart()
    const again = loseAsk()
    await (await mutex.acquireLock(key)).release()
    await landed(again)
    const began = performance.now()
    await until(async () => {
      const lock = await other.tryAcquire(key)
      await lock?.release()
      return lock !== null
    })
    expect(performance.now() - began, 'not a whole lease').to.be.below(5000)
  })

  const givenUp: [by: string, settings: ClientOptions][] = [
    ['the store', {}],
    ['the store, of a client that keeps no command', { autoResendUnfulfilledCommands: false }],
    ['the client', { commandTimeout: 300 }],
  ]
  for (const [by, settings] of givenUp) {
    it(`an ask that is given up by ${by}, before the connection breaks, and comes once more: nobody waits for a whole lease`, async () => {
      const { redis, mutex, other, loseAsk } = await apart(settings)
      const again = loseAsk(900)
      const back = once(redis, 'ready')
      const hasty = mutex.with({ storeTimeout: 500 })
      expect(await rejection(hasty.acquireLock(key))).to.be.instanceOf(MutexStoreError)
      // It has been taken back on the next connection, as often as is still to be seen.
      await back
      await sleep(1000)
      expect(await look.exists(`mutex:${key}`)).to.equal(0)
      await landed(again)
      const lock = await other.acquireLock(key)
      expect(lock.waited, 'not a whole lease').to.be.below(5000)
      await lock.release()
    })
  }

  it('a try that is refused, and comes once more when the lock is free: nobody waits for a whole lease', async () => {
    const { mutex, other, loseAsk } = await apart()
    const held = await other.acquireLock(key)
    const again = loseAsk()
    expect(await mutex.tryAcquire(key)).to.equal(null)
    await held.release()
    await again(look)
    const lock = await other.acquireLock(key)
    expect(lock.waited, 'not a whole lease').to.be.below(5000)
    await lock.release()
  })

  it('a grant by push to one who has left, while its ask is on its way: it goes on to the next', async () => {
    const leaving = new AbortController()
    const options = { delay: 1000, lease: 19_000, storeTimeout: 14_000 }
    const { wire, held, waiting } = await waitingBehind(options, leaving.signal)
    const left = rejection(waiting)
    const patient = await mutexOn(create(), { delay: 12_000, lease: 19_000 })
    await queued(1)
    const next = patient.acquireLock(key)
    await queued(2)
    wire.keep('replies')
    await until(() => wire.kept > 0)
    wire.keepNoMore()
    leaving.abort()
    await left
    await held.release()
    const lock = await next
    expect(lock.waited, 'it was told').to.be.below(5000)
    wire.pass()
    await lock.release()
  })

  it('those who leave before a server that hangs: each is taken back once', async () => {
    const server = await startRedis()
    atEnd(() => server.stop())
    const redis = client!.create(server.port)
    const options = { storeTimeout: 200, lease: 15_000, delay: 14_000 }
    const [mutex, other] = [
      await mutexOn(redis, options),
      await mutexOn(client!.create(server.port), { lease: 19_000 }),
    ]
    const keys = range(20).map((n) => `${key}:${n}`)
    const held = await Promise.all(keys.map((one) => other.acquireLock(one)))
    const leaving = new AbortController()
    const { signal } = leaving
    const left = keys.map((one) => rejection(mutex.acquireLock(one, { signal })))
    await until(async () => {
      const queues = await client!.create(server.port).keys('redismutex:queue:*')
      return queues.length === keys.length
    })
    // They ask once more when the inbox is open: what is still on its way is not taken back.
    await until(() => mutex.store.listeningSince < Number.POSITIVE_INFINITY)
    await mutex.runExclusive(freshKey(), () => {})
    server.pause()
    let calls = 0
    const send = redis.evalsha.bind(redis) as (...args: unknown[]) => Promise<unknown>
    const counted = (...args: unknown[]) => {
      calls++
      return send(...args)
    }
    Object.assign(redis, { evalsha: counted })
    leaving.abort()
    await Promise.all(left)
    await sleep(1500)
    expect(calls).to.be.within(1, keys.length)
    server.resume()
    await Promise.all(held.map((lock) => lock.release()))
  })

  describe('a client that says nothing of what was in flight when a connection breaks', () => {
    const forgetful = { autoResendUnfulfilledCommands: false, maxRetriesPerRequest: null }

    it('what it keeps for a server that has forgotten some scripts leaves nothing behind', async () => {
      const server = await startRedis()
      atEnd(() => server.stop())
      const proxy = await startProxy(server.port)
      const redis = client!.create(proxy.port, forgetful)
      const mutex = await mutexOn(redis, { lease: 19_000 })
      proxy.refuse()
      proxy.cut()
      await until(() => redis.status !== 'ready')
      expect(await rejection(mutex.acquireLock(key))).to.be.instanceOf(MutexStoreError)
      const direct = client!.create(server.port)
      await direct.script('FLUSH')
      await direct.script('LOAD', scripts.cancel.text)
      await proxy.accept()
      // In the same order as what was kept.
      await mutex.runExclusive(freshKey(), () => {})
      await until(async () => (await direct.exists(`mutex:${key}`)) === 0)
      await (await mutex.acquireLock(key, { blockTime: 3000 })).release()
    })

    it('nothing piles up before a server that is away', async () => {
      const server = await startRedis()
      atEnd(() => server.stop())
      const proxy = await startProxy(server.port)
      const redis = client!.create(proxy.port, { ...forgetful, retryStrategy: () => 50 })
      const mutex = await mutexOn(redis, { lease: 19_000, storeTimeout: 300 })
      const held = await Promise.all(range(20).map((n) => mutex.acquireLock(`${key}:${n}`)))
      proxy.refuse()
      proxy.cut()
      await until(() => redis.status !== 'ready')
      const asked = range(20).map((n) => mutex.acquireLock(`${key}:asked:${n}`))
      await Promise.allSettled([...held.map((lock) => lock.release()), ...asked])
      await sleep(1500)
      const kept = (redis as unknown as { offlineQueue: { length: number } }).offlineQueue.length
      // A call for each at the very most, to take it back, and what was sent for all.
      expect(kept).to.be.within(1, held.length + asked.length + 2)
      await proxy.accept()
      const direct = client!.create(server.port)
      await until(() => redis.status === 'ready')
      await until(async () => (await direct.keys(`mutex:${key}:*`)).length === 0)
    })
  })

  it('a connection of a Cluster that breaks, and connects again by itself without a word: what was asked there is taken back', async () => {
    const proxy = await startProxy(sharedRedis().port)
    const node = client!.create(proxy.port, { autoResendUnfulfilledCommands: false })
    const cluster = Object.assign(node, { isCluster: true, nodes: () => [node] })
    const mutex = await mutexOn(cluster, { lease: 19_000, storeTimeout: 5000 })
    proxy.pause('replies')
    const refused = rejection(mutex.acquireLock(key))
    await until(async () => (await look.exists(`mutex:${key}`)) === 1)
    proxy.cut()
    proxy.resume()
    expect(await refused).to.be.instanceOf(MutexStoreError)
    await until(async () => (await look.exists(`mutex:${key}`)) === 0)
    await mutex.runExclusive(key, () => {})
  })

  it('a demotion: the client hears of READONLY, and may reconnect', async () => {
    const server = await startRedis()
    atEnd(() => server.stop())
    let heard = ''
    const redis = client!.create(server.port, {
      reconnectOnError: (error) => {
        heard = error.message
        return false
      },
    })
    const mutex = new RedisMutex(redis)
    atEnd(() => mutex.close())
    await redis.call('REPLICAOF', '127.0.0.1', '1')
    expect(await rejection(mutex.acquireLock(key))).to.have.property('code', 'ERR_MUTEX_STORE')
    expect(heard).to.match(/^READONLY/)
  })
})
