import { setTimeout as sleep } from 'node:timers/promises'
import { type Lock, MutexStoreError, MutexUnlockError, RedisMutex } from '@redismutex/core'
import { expect } from 'chai'
import type { Redis } from 'ioredis'
import { until } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'
import { redisClients } from '../support/clients.js'
import { startProxy, type TcpProxy } from '../support/proxy.js'
import { freshKey, type RedisServer, startRedis } from '../support/redis.js'

const [client] = redisClients as [(typeof redisClients)[number]]

/** Longer than anybody waits here: who gets the key did not wait for a lease to end. */
const LEASE = 9000
const PATIENCE = 7000
const STORE_TIMEOUT = 300

interface Stage {
  readonly proxy: TcpProxy
  readonly server: RedisServer
  readonly look: Redis
}

/** What goes wrong with the next command. Gives what puts it right again, once it was sent. */
type Fault = (stage: Stage) => Promise<() => Promise<unknown>>

/** What goes one way comes after `ms`, or is lost then. */
const heldBack =
  (way: 'requests' | 'replies', ms: number, end: 'comes' | 'lost' = 'comes'): Fault =>
  async ({ proxy }) => {
    proxy.pause(way)
    return async () => {
      await sleep(ms)
      if (end === 'lost') proxy.cut()
      proxy.resume()
    }
  }

const faults: Record<string, Fault> = {
  'whose reply is lost, so that it is sent twice': async ({ proxy }) => {
    const lost = proxy.dropReplies(1)
    return () => lost
  },
  'whose reply is late': heldBack('replies', 2 * STORE_TIMEOUT),
  'whose reply is late, and then lost': heldBack('replies', 2 * STORE_TIMEOUT, 'lost'),
  'that is executed when it has been given up': heldBack('requests', 2 * STORE_TIMEOUT),
  'that is lost, and is sent again by a new connection': heldBack('requests', 50, 'lost'),
  'before which the connection is reset': async ({ proxy }) => {
    proxy.cut()
    return async () => {}
  },
  'whose script is not known any more': async ({ look }) => {
    await look.script('FLUSH')
    return async () => {}
  },
  'before which Redis freezes': async ({ server }) => {
    server.pause()
    return async () => {
      await sleep(2 * STORE_TIMEOUT)
      server.resume()
    }
  },
  'before which Redis is restarted empty': async ({ server }) => {
    await server.restart()
    return async () => {}
  },
}

/** How it may end for the one it happens to: well, or by saying that nobody knows. */
async function mayFail<T>(promise: Promise<T>): Promise<T | undefined> {
  try {
    return await promise
  } catch (error) {
    const known = error instanceof MutexStoreError || error instanceof MutexUnlockError
    if (!known) throw error
    return undefined
  }
}

describe('a command', () => {
  let server: RedisServer
  before(async () => {
    server = await startRedis()
  })
  after(() => server.stop())

  let stage: Stage
  let key: string
  let mutex: RedisMutex
  let other: RedisMutex

  beforeEach(async () => {
    key = freshKey()
    const proxy = await startProxy(server.port)
    stage = { proxy, server, look: client.create(server.port) }
    const redis = client.create(proxy.port)
    // What goes wrong happens to commands alone.
    redis.duplicate = (override) => client.create(server.port, override)
    const options = { blockTime: PATIENCE, delay: 300, expiry: 20_000, lease: LEASE }
    mutex = new RedisMutex(redis, { ...options, storeTimeout: STORE_TIMEOUT })
    // It may have to wait for a Redis that is frozen, or comes back.
    other = new RedisMutex(client.create(server.port), { ...options, storeTimeout: 5000 })
    atEnd(() => Promise.all([mutex.close(), other.close()]))
    const patient = mutex.with({ storeTimeout: 5000 })
    await Promise.all([patient, other].map((one) => one.runExclusive(freshKey(), () => {})))
  })

  const queued = (count: number) =>
    until(async () => (await stage.look.zcard(`redismutex:queue:{mutex:${key}}`)) === count)

  /** The other process gets the key before a lease would end, and leaves nothing. */
  async function nobodyHasIt(waiting: Promise<Lock> = other.acquireLock(key)): Promise<void> {
    const lock = await waiting
    expect(lock.waited, 'not a whole lease').to.be.below(PATIENCE)
    await lock.release()
    await until(
      async () =>
        (await stage.look.exists(`mutex:${key}`, `redismutex:queue:{mutex:${key}}`)) === 0,
    )
  }

  for (const [name, fault] of Object.entries(faults)) {
    describe(name, () => {
      it('that acquires leaves no lock to nobody', async () => {
        const mend = await fault(stage)
        const acquiring = mayFail(mutex.acquireLock(key))
        await mend()
        const lock = await acquiring
        if (lock) await mayFail(lock.release())
        await nobodyHasIt()
      })

      it('that releases lets the next one in', async () => {
        const lock = await mutex.acquireLock(key)
        const waiting = other.acquireLock(key)
        await queued(1)
        const mend = await fault(stage)
        const releasing = mayFail(lock.release())
        await mend()
        await releasing
        await nobodyHasIt(waiting)
      })

      it('that releases and asks for the next leaves no lock to nobody', async () => {
        const lock = await mutex.acquireLock(key)
        const next = mayFail(mutex.acquireLock(key)).then((heir) => heir && mayFail(heir.release()))
        // It gives the lock back, and does not pass it on, if it has been told that others wait.
        const inbox = `redismutex:inbox:${lock.value?.split('|')[0]}`
        await until(async () => (await stage.look.pubsub('NUMSUB', inbox))[1] === 1)
        const waiting = other.acquireLock(key)
        await queued(1)
        const mend = await fault(stage)
        const releasing = mayFail(lock.release())
        await mend()
        await releasing
        await mayFail((await waiting).release())
        await next
        await nobodyHasIt()
      })

      it('that renews keeps the lock or tells of its loss', async () => {
        const short = mutex.with({ lease: 1500 })
        const lock = await short.acquireLock(key)
        await until(async () => Number(await stage.look.pttl(`mutex:${key}`)) < 850)
        const mend = await fault(stage)
        const waiting = other.acquireLock(key).then((next) => {
          // A Redis that has lost its data gives what it knows nothing of: see what is not promised.
          const over = lock.key === null || lock.signal.aborted || name.includes('empty')
          expect(over, 'nobody else holds it').to.equal(true)
          return next
        })
        waiting.catch(() => {})
        await mend()
        await sleep(800)
        await mayFail(lock.release())
        await nobodyHasIt(waiting)
      })

      it('that takes an ask back leaves no lock to nobody', async () => {
        const held = await other.acquireLock(key)
        const leaving = new AbortController()
        const waiting = mutex.acquireLock(key, { signal: leaving.signal }).catch(() => undefined)
        await queued(1)
        const mend = await fault(stage)
        leaving.abort()
        await mend()
        await waiting
        await mayFail(held.release())
        await nobodyHasIt()
      })
    })
  }
})
