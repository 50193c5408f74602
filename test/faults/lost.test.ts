import { setTimeout as sleep } from 'node:timers/promises'
import { type Lock, MutexLostError, MutexUnlockError, RedisMutex } from '@redismutex/core'
import { expect } from 'chai'
import type { Redis } from 'ioredis'
import { aborted, rejection, stall } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'
import { redisClients } from '../support/clients.js'
import { poll } from '../support/poll.js'
import { startProxy, type TcpProxy } from '../support/proxy.js'
import { freshKey, type RedisServer, startRedis } from '../support/redis.js'

const LEASE = 900

interface Scene {
  readonly server: RedisServer
  readonly proxy: TcpProxy
  readonly look: Redis
  readonly name: string
}

type Event = (scene: Scene) => unknown

/** After these Redis knows nothing of the lock, or says that it is somebody else's. */
const takenAway: Record<string, Event> = {
  'somebody deletes its key': ({ look, name }) => look.del(name),
  'somebody takes its key': ({ look, name }) => look.set(name, 'somebody'),
  'somebody takes its key for something else': async ({ look, name }) => {
    await look.del(name)
    await look.hset(name, 'field', 'value')
  },
  'all is flushed': ({ look }) => look.flushall(),
}

/** And these keep the process from renewing it, until `mend`. */
const cutOff: Record<string, readonly [happen: Event, mend: Event]> = {
  'Redis freezes': [({ server }) => server.pause(), ({ server }) => server.resume()],
  'the connection is half open': [({ proxy }) => proxy.pause(), ({ proxy }) => proxy.resume()],
  'replies do not come': [({ proxy }) => proxy.pause('replies'), ({ proxy }) => proxy.resume()],
  'the connection breaks, and none is to be had': [
    ({ proxy }) => {
      proxy.refuse()
      proxy.cut()
    },
    ({ proxy }) => proxy.accept(),
  ],
}

for (const client of redisClients) {
  describe(`a holder is told by the end of its lease, through ${client.name}, when`, () => {
    let server: RedisServer
    before(async () => {
      server = await startRedis()
    })
    after(() => server.stop())

    let scene: Scene
    let key: string
    let mutex: RedisMutex
    let other: RedisMutex
    let lock: Lock

    beforeEach(async () => {
      key = freshKey()
      const proxy = await startProxy(server.port)
      scene = { server, proxy, look: client.create(server.port), name: `mutex:${key}` }
      const options = { lease: LEASE, expiry: Number.POSITIVE_INFINITY, delay: 200 }
      mutex = new RedisMutex(client.create(proxy.port), { ...options, storeTimeout: 400 })
      other = new RedisMutex(client.create(server.port), { ...options, storeTimeout: 9000 })
      atEnd(() => Promise.all([mutex.close(), other.close()]))
      await Promise.all([mutex, other].map((one) => one.runExclusive(freshKey(), () => {})))
      lock = await mutex.acquireLock(key)
    })

    /** No renewal that was asked for later than `since` can have come through. */
    async function isTold(since: number): Promise<void> {
      const { signal } = lock
      const heard = aborted(signal)
      await sleep(Math.ceil(since + LEASE - performance.now()))
      // The clock decides, and not whether a busy machine has come to run a timer.
      expect(lock.signal.aborted).to.equal(true)
      expect(await heard).to.be.instanceOf(MutexLostError)
    }

    for (const [name, happen] of Object.entries(takenAway)) {
      it(name, async () => {
        await happen(scene)
        await isTold(performance.now())
        await scene.look.del(scene.name)
        await scene.look.set(scene.name, 'another')
        expect(await rejection(lock.release())).to.be.instanceOf(MutexUnlockError)
        await mutex.close()
        expect(await scene.look.get(scene.name)).to.equal('another')
      })

      it(`${name}, and it releases before it has been told`, async () => {
        await happen(scene)
        const type = await scene.look.type(scene.name)
        await rejection(lock.release())
        expect(await scene.look.type(scene.name)).to.equal(type)
      })
    }

    for (const [name, [happen, mend]] of Object.entries(cutOff)) {
      it(`${name}: before the next one holds the key`, async () => {
        const waiting = other.acquireLock(key).then((next) => {
          expect(lock.signal.aborted, 'it was told before').to.equal(true)
          return next
        })
        waiting.catch(() => {})
        await happen(scene)
        await isTold(performance.now())
        expect(await rejection(lock.release())).to.be.instanceOf(MutexUnlockError)
        await mend(scene)
        const next = await waiting
        // What the process had sent, and sends now, leaves the next holder alone.
        await poll('its client is connected again', () =>
          mutex.runExclusive(freshKey(), () => true).catch(() => false),
        )
        expect(await scene.look.get(scene.name)).to.equal(next.value)
        await next.release()
      })
    }

    it('its event loop stalls: whoever looks sees it, before any timer has run', async () => {
      const { signal } = lock
      stall(LEASE)
      expect(lock.signal.aborted).to.equal(true)
      expect(signal.aborted).to.equal(true)
      await scene.look.set(scene.name, 'another')
      expect(await rejection(lock.release())).to.be.instanceOf(MutexUnlockError)
      await mutex.close()
      expect(await scene.look.get(scene.name)).to.equal('another')
    })
  })
}
