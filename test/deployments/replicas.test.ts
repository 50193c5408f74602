import { setTimeout as sleep } from 'node:timers/promises'
import {
  type Lock,
  MutexLostError,
  MutexStoreError,
  RedisMutex,
  type RedisMutexOptions,
  redisStore,
} from '@redismutex/core'
import { expect } from 'chai'
import { Cluster, type Redis } from 'ioredis'
import { scripts } from '../../packages/core/src/stores/redis/scripts.js'
import { aborted, range, rejection, until } from '../conformance/ground.js'
import { Tap } from '../core/tap.js'
import { loseNext, Wire } from '../faults/wire.js'
import { atEnd } from '../support/cleanup.js'
import { type RedisClient, redisClients } from '../support/clients.js'
import { startProxy } from '../support/proxy.js'
import { freshKey } from '../support/redis.js'
import { inStep, type Replicated, startReplicated } from '../support/replica.js'

const replicated = { waitReplicas: { count: 1, timeout: 100 } }
const options = { blockTime: 15_000, delay: 50, expiry: 20_000, lease: 6000, ...replicated }

for (const library of redisClients) {
  describe(`a lock that replicas have to confirm, through ${library.name}`, () => {
    let servers: Replicated
    let redis: Redis
    let copy: Redis
    let key: string

    before(async () => {
      servers = await startReplicated()
    })

    after(() => servers.stop())

    beforeEach(async () => {
      redis = library.create(servers.primary.port)
      copy = library.create(servers.replica.port)
      key = freshKey()
      await inStep(servers.replica)
    })

    const lockName = () => `mutex:${key}`
    const free = async () => (await redis.exists(lockName())) === 0
    const waitingThere = async () => {
      const list = (await redis.call('CLIENT', 'LIST')) as string
      return list.split('\n').filter((line) => line.includes('cmd=wait'))
    }

    function mutex(more: RedisMutexOptions = {}, port = servers.primary.port): RedisMutex {
      const created = new RedisMutex(library.create(port), { ...options, ...more })
      atEnd(() => created.close())
      return created
    }

    /** Stops the replica for as long as `work` takes. */
    async function withoutReplica(work: () => Promise<void>): Promise<void> {
      servers.replica.pause()
      try {
        await work()
      } finally {
        servers.replica.resume()
      }
    }

    it('is held there, too', async () => {
      const lock = await mutex().acquireLock(key)
      expect(await copy.get(lockName())).to.equal(lock.value)
      expect(await copy.pttl(lockName())).to.be.above(0)
      await lock.release()
    })

    it('may wait for them for as long as a timer can', async () => {
      const patient = mutex({ waitReplicas: { count: 1, timeout: 2_147_483_647 } })
      await patient.runExclusive(key, async () => expect(await copy.exists(lockName())).to.equal(1))
    })

    it('leaves nothing behind of any ask that came late, when it was confirmed the second time only', async () => {
      const own = { lease: 15_000, waitReplicas: undefined }
      const [first, second] = [await mutex(own).acquireLock(key), mutex(own)]
      const client = library.create(servers.primary.port)
      const wire = new Wire(client)
      const replicas = { waitReplicas: { count: 1, timeout: 1600 } }
      const late = { ...options, ...replicas, delay: 150, lease: 15_000, storeTimeout: 600 }
      const created = new RedisMutex(client, late)
      atEnd(() => created.close())
      const queued = (count: number) =>
        until(async () => (await redis.zcard(`redismutex:queue:{${lockName()}}`)) === count)
      const waiting = created.acquireLock(key)
      await queued(1)
      const next = second.acquireLock(key)
      await queued(2)
      // One ask is given up while the lock that came meanwhile waits for the replica, in vain.
      wire.keep('requests')
      await until(() => wire.kept === 1)
      wire.keepNoMore()
      let held: Lock | undefined
      await withoutReplica(async () => {
        await first.release()
        held = await next
      })
      await inStep(servers.replica)
      // Another is answered when the lock is about to go back.
      wire.keep('replies')
      await until(() => wire.kept === 2)
      wire.keepNoMore()
      await held?.release()
      const lock = await waiting
      wire.keep('requests')
      const released = lock.release()
      await until(() => wire.kept === 3)
      wire.keepNoMore()
      for (let which = 0; which < 2; which++) {
        const { answered } = wire
        wire.passOne(1)
        await until(() => wire.answered > answered)
      }
      await released
      await until(free)
      const { answered } = wire
      wire.pass()
      await until(() => wire.answered > answered)
      await until(free)
    })

    /** What is asked of Redis can be kept on its way; it asks once more when its inbox is open. */
    async function waitingBehind(
      more: RedisMutexOptions,
      client = library.create(servers.primary.port),
    ) {
      const wire = new Wire(client)
      const user = new RedisMutex(client, { ...options, lease: 15_000, ...more })
      atEnd(() => user.close())
      await user.runExclusive(freshKey(), () => {})
      const plain = { lease: 15_000, waitReplicas: undefined }
      const held = await mutex(plain).acquireLock(key)
      const { answered } = wire
      const waiting = user.acquireLock(key)
      await until(() => wire.answered >= answered + 2)
      const next = mutex(plain).acquireLock(key)
      await until(async () => (await redis.zcard(`redismutex:queue:{${lockName()}}`)) === 2)
      return { wire, user, held, waiting, next }
    }

    it('has a higher token than whoever had it since the grant that is confirmed', async () => {
      const terms = { storeTimeout: 10_000, waitReplicas: { count: 1, timeout: 4000 } }
      const { wire, user, held, waiting, next } = await waitingBehind({ ...terms, delay: 300 })
      let token = 0n
      await withoutReplica(async () => {
        // Another one waits for the replica, so that the claim ends before it is confirmed.
        user.acquireLock(freshKey()).catch(() => {})
        await until(async () => (await waitingThere()).length === 1)
        wire.keep('requests')
        await until(() => wire.kept > 0)
        wire.keepNoMore()
        await held.release()
        const lock = await next
        token = BigInt(lock.fencingToken as string)
        await lock.release()
        // A late ask gets it back, by the same owner.
        wire.pass()
        await until(async () => !(await free()))
      })
      const lock = await waiting
      expect(BigInt(lock.fencingToken as string) > token).to.equal(true)
      await lock.release()
    })

    it('does not come by a push that is older than an ask', async () => {
      const pushes: (() => void)[] = []
      let late = false
      const client = library.create(servers.primary.port)
      const duplicate = client.duplicate.bind(client)
      client.duplicate = (override?: object) => {
        const inbox = duplicate(override)
        const on = inbox.on.bind(inbox) as (event: string, listener: () => void) => typeof inbox
        const onLate = (event: string, listener: (...args: unknown[]) => void) =>
          on(event, (...args: unknown[]) => {
            if (event === 'message' && late) pushes.push(() => listener(...args))
            else listener(...args)
          })
        return Object.assign(inbox, { on: onLate })
      }
      const terms = { delay: 150, storeTimeout: 10_000 }
      const { wire, held, waiting, next } = await waitingBehind(terms, client)
      late = true
      let lock: Lock | undefined
      await withoutReplica(async () => {
        await held.release()
        // By now the ask that found the grant has not been confirmed, and has given it back.
        lock = await next
      })
      const token = BigInt(lock?.fencingToken as string)
      wire.keep('replies')
      await lock?.release()
      await until(() => wire.kept > 0)
      late = false
      for (const push of pushes) push()
      wire.pass()
      const got = await waiting
      expect(BigInt(got.fencingToken as string) > token).to.equal(true)
      await got.release()
    })

    it('is not held by an owner whose lock may be taken back once more', async () => {
      const proxy = await startProxy(servers.primary.port)
      const client = library.create(proxy.port)
      client.duplicate = (override?: object) => library.create(servers.primary.port, override)
      const user = new RedisMutex(client, { ...options, storeTimeout: 5000 })
      atEnd(() => user.close())
      await user.runExclusive(freshKey(), () => {})
      const again = loseNext(client, scripts.cancel.sha, proxy)
      let refused: Promise<unknown> | undefined
      await withoutReplica(async () => {
        refused = rejection(user.acquireLock(key))
        await until(async () => !(await free()))
        await until(free)
      })
      expect(await refused).to.be.instanceOf(MutexStoreError)
      const lock = await user.acquireLock(key)
      await again(redis)
      expect(await redis.get(lockName())).to.equal(lock.value)
      await lock.release()
    })

    it('is asked for no more once it has been given back', async () => {
      const { wire, held, waiting, next } = await waitingBehind({ delay: 1000 })
      wire.keep('replies')
      await until(() => wire.kept === 1)
      wire.keepNoMore()
      let lock: Lock | undefined
      await withoutReplica(async () => {
        const { answered } = wire
        await held.release()
        lock = await next
        await until(() => wire.answered > answered)
      })
      wire.pass()
      await lock?.release()
      await (await waiting).release()
      const { answered } = wire
      await sleep(1300)
      expect(wire.answered).to.equal(answered)
    })

    it('works again when its client has been connected again', async () => {
      const client = library.create(servers.primary.port)
      const user = new RedisMutex(client, options)
      atEnd(() => user.close())
      await user.runExclusive(key, () => {})
      client.disconnect()
      await until(() => client.status === 'end')
      await client.connect()
      await user.runExclusive(key, () => {})
    })

    it('is held there when it came from another process, as a push', async () => {
      const holder = await mutex().acquireLock(key)
      const waiter = mutex().acquireLock(key)
      await until(async () => (await redis.zcard(`redismutex:queue:{${lockName()}}`)) === 1)
      await holder.release()
      const lock = await waiter
      expect(await copy.get(lockName())).to.equal(lock.value)
      await lock.release()
    })

    it('is held there although the scripts were unknown', async () => {
      const user = mutex()
      await user.runExclusive(key, () => {})
      await redis.script('FLUSH')
      const lock = await user.acquireLock(key)
      expect(await copy.get(lockName())).to.equal(lock.value)
      await lock.release()
    })

    it('is waited for once by a server that is new', async () => {
      await redis.script('FLUSH')
      await redis.config('RESETSTAT')
      await withoutReplica(async () => {
        expect(await rejection(mutex().tryAcquire(key))).to.be.instanceOf(MutexStoreError)
      })
      const stats = await redis.info('commandstats')
      expect(stats).to.match(/cmdstat_wait:calls=1,/)
    })

    it('is given back when too few have it, and it is the store that is to blame', async () => {
      await withoutReplica(async () => {
        const error = await rejection(mutex().acquireLock(key, { blockTime: 700 }))
        expect(error).to.be.instanceOf(MutexStoreError).with.property('key', key)
        expect(error)
          .to.have.property('message')
          .that.matches(/^only 0 of 1 replicas .* 100 ms$/)
        await until(free)
      })
    })

    it('is refused to a try', async () => {
      await withoutReplica(async () => {
        const user = mutex()
        expect(await rejection(user.tryAcquire(key))).to.be.instanceOf(MutexStoreError)
        expect(await free()).to.equal(true)
        const once = user.acquireLock(key, { blocking: false })
        expect(await rejection(once)).to.be.instanceOf(MutexStoreError)
        expect(await free()).to.equal(true)
      })
    })

    it('comes as soon as they are back', async () => {
      let acquiring: ReturnType<RedisMutex['acquireLock']> | undefined
      await withoutReplica(async () => {
        acquiring = mutex().acquireLock(key)
        await until(async () => (await waitingThere()).length === 1)
        await until(free)
      })
      const lock = await acquiring
      expect(await copy.get(lockName())).to.equal(lock?.value)
      await lock?.release()
    })

    it('leaves the way free for other commands while it is waited for', async () => {
      await withoutReplica(async () => {
        const patient = mutex({ waitReplicas: { count: 1, timeout: 30_000 } })
        const acquiring = rejection(patient.acquireLock(key))
        await until(async () => (await waitingThere()).length === 1)
        // Over the same client, and over the same store.
        const { store } = patient
        expect(await redis.ping()).to.equal('PONG')
        const plain = mutex({ waitReplicas: undefined })
        await plain.runExclusive(freshKey(), () => {})
        expect(await plain.tryAcquire(key)).to.equal(null)
        expect(store).not.to.equal(plain.store)
        await patient.close()
        await acquiring
        await until(free)
      })
    })

    it('is not taken for confirmed when the connection breaks that waits', async () => {
      let has = false
      let acquiring: Promise<void> | undefined
      await withoutReplica(async () => {
        acquiring = mutex({ waitReplicas: { count: 1, timeout: 20_000 } })
          .acquireLock(key)
          .then((lock) => {
            has = true
            return lock.release()
          })
        for (const _ of range(2)) {
          await until(async () => (await waitingThere()).length === 1)
          const [line] = await waitingThere()
          const id = line?.match(/id=(\d+)/)?.[1] ?? ''
          await redis.call('CLIENT', 'KILL', 'ID', id)
          await until(async () => !(await waitingThere()).some((one) => one.includes(`id=${id} `)))
        }
        await until(async () => (await waitingThere()).length === 1)
        expect(has).to.equal(false)
      })
      await acquiring
    })

    it('is confirmed together with others, 128 in one call', async () => {
      const user = mutex({ waitReplicas: { count: 1, timeout: 10_000 } })
      await user.runExclusive(key, () => {})
      const tap = await Tap.open(library.create(servers.primary.port), servers.primary.port)
      await redis.config('RESETSTAT')
      let acquiring: Promise<Lock>[] = []
      await withoutReplica(async () => {
        acquiring = range(300).map((n) => user.acquireLock(`${key}:${n}`))
        await until(async () => (await redis.keys(`mutex:${key}:*`)).length === 300)
      })
      const locks = await Promise.all(acquiring)
      for (const { key, value } of locks) expect(await copy.get(`mutex:${key}`)).to.equal(value)
      const stats = await redis.info('commandstats')
      expect(Number(stats.match(/cmdstat_wait:calls=(\d+)/)?.[1])).to.be.below(30)
      // A fence, and for each a lock and its queue: nobody else is kept waiting for long.
      const calls = (await tap.take()).filter(([name]) => name === 'evalsha')
      for (const [, , keys] of calls) expect(Number(keys)).to.be.at.most(1 + 2 * 128)
      await Promise.all(locks.map((lock) => lock.release()))
    })

    it('passes on inside a process without being confirmed anew', async () => {
      const user = mutex()
      await user.runExclusive(key, () => {})
      await redis.config('RESETSTAT')
      const visits = range(20).map(() => user.runExclusive(key, () => {}))
      await Promise.all(visits)
      const stats = await redis.info('commandstats')
      expect(Number(stats.match(/cmdstat_wait:calls=(\d+)/)?.[1])).to.be.below(20)
    })

    it('is kept as long as renewals are confirmed, and no longer', async () => {
      const user = mutex({ expiry: Number.POSITIVE_INFINITY, lease: 1200 })
      const lock = await user.acquireLock(key)
      await sleep(1500)
      expect(lock.signal.aborted).to.equal(false)
      expect(await copy.get(lockName())).to.equal(lock.value)
      await withoutReplica(async () => {
        expect(await aborted(lock.signal)).to.be.instanceOf(MutexLostError)
        await rejection(lock.release())
      })
    })

    it('gives up a connection that does not answer', async () => {
      const proxy = await startProxy(servers.primary.port)
      const client = library.create(servers.primary.port)
      client.duplicate = (override?: object) => library.create(proxy.port, override)
      const created = new RedisMutex(client, { ...options, storeTimeout: 500 })
      atEnd(() => created.close())
      await created.runExclusive(key, () => {})
      proxy.pause()
      const error = await rejection(created.acquireLock(key, { blockTime: 1000 }))
      expect(error).to.be.instanceOf(MutexStoreError)
      const later = created.acquireLock(key)
      proxy.resume()
      await (await later).release()
    })

    it('leaves no connection behind when its mutex is closed', async () => {
      const clients = async () =>
        ((await redis.call('CLIENT', 'LIST')) as string).trim().split('\n').length
      const client = library.create(servers.primary.port)
      await client.ping()
      const before = await clients()
      const user = new RedisMutex(client, options)
      await user.runExclusive(key, () => {})
      expect(await clients()).to.equal(before + 1)
      await user.close()
      await until(async () => (await clients()) === before)
    })
  })
}

describe('a lock that replicas have to confirm', () => {
  const [library] = redisClients as [RedisClient]

  it('is still there when the primary is lost and the replica takes over', async () => {
    const { primary, replica, stop } = await startReplicated()
    atEnd(stop)
    const copy = library.create(replica.port)
    const key = freshKey()
    const terms = { ...options, storeTimeout: 300 }
    const user = new RedisMutex(library.create(primary.port), terms)
    const lock = await user.acquireLock(key)
    const owner = lock.value
    await primary.kill()
    await copy.replicaof('NO', 'ONE')
    const other = new RedisMutex(library.create(replica.port), { blockTime: 5000 })
    atEnd(() => other.close())
    expect(await copy.get(`mutex:${key}`)).to.equal(owner)
    expect(await other.tryAcquire(key)).to.equal(null)
    await rejection(lock.release())
    await user.close()
  })

  describe('refuses', () => {
    const client = () => library.create(1, { lazyConnect: true })
    const wrong: [unknown, typeof TypeError | typeof RangeError, string][] = [
      [1, TypeError, 'waitReplicas must be an object, got 1 (number)'],
      [null, TypeError, 'waitReplicas must be an object, got null'],
      [{ count: 1 }, TypeError, 'waitReplicas.timeout must be a whole number from 1'],
      [{ timeout: 1 }, TypeError, 'waitReplicas.count must be a whole number from 1'],
      [{ count: 0, timeout: 1 }, RangeError, 'waitReplicas.count must be a whole number from 1'],
      [{ count: 1.5, timeout: 1 }, RangeError, 'waitReplicas.count must be a whole number from 1'],
      [{ count: 1, timeout: 0 }, RangeError, 'waitReplicas.timeout must be a whole number from 1'],
      [{ count: 1, timeout: 2 ** 31 }, RangeError, 'to 2147483647, got 2147483648 (number)'],
      [{ count: 1, timeout: 1, n: 1 }, TypeError, "unknown option 'n' (string) in waitReplicas"],
    ]
    for (const [waitReplicas, type, message] of wrong) {
      it(JSON.stringify(waitReplicas), () => {
        const create = () => new RedisMutex(client(), { waitReplicas } as object)
        expect(create).to.throw(type, message)
      })
    }

    it('a Cluster, and a client that can not wait', () => {
      const cluster = new Cluster([{ port: 1 }], { lazyConnect: true })
      expect(() => redisStore(cluster, replicated)).to.throw(TypeError, /WAIT.*, got a Cluster$/)
      const mute = Object.assign(client(), { wait: undefined }) as unknown as Redis
      expect(() => redisStore(mute, replicated)).to.throw(TypeError, /got one without wait$/)
    })
  })

  it('is in a store of its own, but the same for the same options', () => {
    const client = library.create(1, { lazyConnect: true })
    const store = redisStore(client, replicated)
    expect(redisStore(client, { waitReplicas: { timeout: 100, count: 1 } })).to.equal(store)
    expect(redisStore(client)).not.to.equal(store)
    expect(redisStore(client, { waitReplicas: { count: 2, timeout: 100 } })).not.to.equal(store)
  })
})
