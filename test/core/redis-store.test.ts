import { BlockTimeExceedError, type Lock, RedisMutex, redisStore } from '@redismutex/core'
import { expect } from 'chai'
import type { Redis } from 'ioredis'
import { namesOf } from '../../packages/core/src/stores/redis/names.js'
import { range, rejection, stall, until } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'
import { type ClientOptions, redisClients } from '../support/clients.js'
import { startProxy } from '../support/proxy.js'
import { freshKey, freshPrefix, sharedRedis, startRedis } from '../support/redis.js'

for (const client of redisClients) {
  describe(`a mutex in Redis by way of ${client.name}`, () => {
    let redis: Redis
    let key: string

    beforeEach(() => {
      redis = connect()
      key = freshKey()
    })

    function connect(options?: ClientOptions): Redis {
      return client.create(sharedRedis().port, options)
    }

    function create(connection = redis, options = {}): RedisMutex {
      const mutex = new RedisMutex(connection, options)
      atEnd(() => mutex.close())
      return mutex
    }

    /** How many connections of the same name are subscribed to something. */
    async function subscriptions(name: string): Promise<number> {
      const clients = String(await redis.client('LIST'))
      return clients
        .split('\n')
        .filter((line) => line.includes(` name=${name} `) && line.includes(' sub=1 ')).length
    }

    it('is a plain string that holds the value of the lock, and expires with its lease', async () => {
      const lock = await create().acquireLock(key)
      expect(await redis.get(`mutex:${key}`)).to.equal(lock.value)
      expect(await redis.pttl(`mutex:${key}`)).to.be.within(1000, 7000)
      await lock.release()
      expect(await redis.exists(`mutex:${key}`)).to.equal(0)
    })

    it('is there for the lease, not for the expiry', async () => {
      const mutex = create(redis, { expiry: Number.POSITIVE_INFINITY, lease: 3000 })
      const lock = await mutex.acquireLock(key)
      expect(await redis.pttl(`mutex:${key}`)).to.be.within(1, 3000)
      await lock.release()
    })

    it('is there for 10 s at a time by default, where it may be held for longer', async () => {
      const lock = await create(redis, { expiry: 60_000 }).acquireLock(key)
      expect(await redis.pttl(`mutex:${key}`)).to.be.within(7001, 10_000)
      await lock.release()
    })

    it('goes by the name that keyPrefix gives it', async () => {
      const keyPrefix = freshPrefix()
      const lock = await create(redis, { keyPrefix }).acquireLock('key')
      expect(await redis.get(`${keyPrefix}key`)).to.equal(lock.value)
      await lock.release()
    })

    it('shares nothing with a mutex of another prefix', async () => {
      const one = await create(redis, { keyPrefix: freshPrefix() }).acquireLock(key)
      const other = await create(redis, { keyPrefix: freshPrefix() }).acquireLock(key)
      await Promise.all([one.release(), other.release()])
    })

    it('has one store for each client and prefix', () => {
      const keyPrefix = freshPrefix()
      expect(redisStore(redis)).to.equal(redisStore(redis, { keyPrefix: 'mutex:' }))
      expect(redisStore(redis, { keyPrefix })).to.equal(redisStore(redis, { keyPrefix }))
      expect(redisStore(redis, { keyPrefix })).not.to.equal(redisStore(redis))
      expect(redisStore(connect())).not.to.equal(redisStore(redis))
    })

    it('needs one more connection for thirty mutexes, and none before somebody waits', async () => {
      const connectionName = freshKey()
      const connection = connect({ connectionName })
      const mutexes = range(30).map(() => create(connection))
      const holder = await (mutexes[0] as RedisMutex).acquireLock(key)
      expect(await subscriptions(connectionName)).to.equal(0)
      const waiters = mutexes.map((mutex) => mutex.runExclusive(key, () => {}))
      await until(async () => (await subscriptions(connectionName)) === 1)
      await holder.release()
      await Promise.all(waiters)
      expect(await subscriptions(connectionName)).to.equal(1)
    })

    it('keeps its connection until its last mutex has closed, and leaves the client open', async () => {
      const connectionName = freshKey()
      const connection = connect({ connectionName })
      const [mutex, other] = [create(connection), create(connection)]
      const holder = await mutex.acquireLock(key)
      const waiter = other.acquireLock(key)
      await until(async () => (await subscriptions(connectionName)) === 1)
      await mutex.close()
      expect(holder.signal.aborted).to.equal(true)
      await (await waiter).release()
      expect(await subscriptions(connectionName)).to.equal(1)
      await other.close()
      await until(async () => (await subscriptions(connectionName)) === 0)
      expect(await connection.ping()).to.equal('PONG')
    })

    it('can be used again by a new mutex when the last has closed', async () => {
      const patient = { blockTime: 15_000, delay: 12_000, expiry: 20_000 }
      const elsewhere = create(connect(), patient)
      for (const _ of range(2)) {
        const mutex = create(redis, patient)
        const holder = await elsewhere.acquireLock(key)
        const waiter = mutex.acquireLock(key)
        await until(async () => (await redis.zcard(namesOf(`mutex:${key}`, '').queue)) === 1)
        await holder.release()
        const lock = await waiter
        expect(lock.waited).to.be.below(6000)
        await lock.release()
        await mutex.close()
      }
    })

    it('adds no pile of listeners to a client that has many prefixes', () => {
      for (const _ of range(20)) create(redis, { keyPrefix: freshPrefix() })
      // More than ten for one event would be reported as a leak, and fail the run.
      expect(redis.listenerCount('close')).to.be.at.most(redis.getMaxListeners())
    })

    it('leaves no listener on the client when its last mutex has closed, variants or not', async () => {
      const listeners = () => ['close', 'end', '-node'].map((event) => redis.listenerCount(event))
      await redis.ping()
      const before = listeners()
      const mutex = create()
      mutex.with({ maxWaiting: 1 })
      await mutex.close()
      expect(listeners()).to.deep.equal(before)
      mutex.with({ maxWaiting: 2 })
      expect(listeners()).to.deep.equal(before)
    })

    for (const [how, options] of [
      ['that connects lazily', { lazyConnect: true }],
      ['with a key prefix of its own', { keyPrefix: 'client:' }],
      ['without an offline queue', { enableOfflineQueue: false }],
      ['that speaks to another database', { db: 3 }],
      ['that does not subscribe again by itself', { autoResubscribe: false }],
    ] as const) {
      it(`is handed over at once by a client ${how}`, async () => {
        const connections = [connect(options), connect(options)] as const
        if (!('lazyConnect' in options)) {
          await Promise.all(
            connections.map(
              (c) => c.status === 'ready' || new Promise((on) => c.once('ready', on)),
            ),
          )
        }
        const patient = { blockTime: 15_000, delay: 12_000, expiry: 20_000 }
        const [mutex, other] = connections.map((c) => create(c, patient)) as [
          RedisMutex,
          RedisMutex,
        ]
        const holder = await mutex.acquireLock(key)
        const waiter = other.acquireLock(key)
        const queue = namesOf(`mutex:${key}`, 'keyPrefix' in options ? options.keyPrefix : '').queue
        await until(async () => (await connections[0].zcard(queue)) === 1)
        await holder.release()
        const lock = await waiter
        expect(lock.waited).to.be.below(6000)
        await lock.release()
      })
    }

    it('has fencing tokens that rise when the server has forgotten the last', async () => {
      const server = await startRedis()
      atEnd(() => server.stop())
      const redis = client.create(server.port)
      const mutex = create(redis)
      let last = 0n
      for (const _ of range(4)) {
        await mutex.runExclusive(key, (lock) => {
          const token = BigInt(lock.fencingToken as string)
          expect(token > last).to.equal(true)
          expect(Number.isSafeInteger(Number(token))).to.equal(true)
          last = token
        })
        expect(await redis.del('redismutex:fence')).to.equal(1)
      }
    })

    it('has fencing tokens that rise when Redis’s clock has been put back, after hand-overs too', async () => {
      const server = await startRedis()
      atEnd(() => server.stop())
      const redis = client.create(server.port)
      const mutex = create(redis)
      let last = Date.now() * 1000 + 60_000_000
      await redis.set('redismutex:fence', last)
      const rise = ({ fencingToken }: Lock): void => {
        expect(Number(fencingToken)).to.be.above(last)
        last = Number(fencingToken)
      }
      for (const _ of range(3)) await Promise.all(range(5).map(() => mutex.runExclusive(key, rise)))
    })

    it('uses no fencing token before Redis’s clock has passed it, so that a crash repeats none', async () => {
      const mutex = create()
      await Promise.all(
        range(2400).map((n) =>
          mutex.runExclusive(key, async (lock) => {
            if (n % 600 > 0) return
            const [seconds, micros] = await redis.time()
            const clock = Number(seconds) * 1e6 + Number(micros)
            expect(Number(lock.fencingToken)).to.be.at.most(clock)
          }),
        ),
      )
    })

    it('keeps nothing of a mutex that is free, but one fence for all, which expires', async () => {
      const server = await startRedis()
      atEnd(() => server.stop())
      const connect = () => client.create(server.port)
      const redis = connect()
      const keyPrefix = freshPrefix()
      const mutexes = [create(redis, { keyPrefix }), create(connect(), { keyPrefix })]
      await Promise.all(
        mutexes.flatMap((mutex) => range(5).map(() => mutex.runExclusive('key', () => {}))),
      )
      await Promise.all(mutexes.map((mutex) => mutex.close()))
      expect(await redis.keys('*')).to.deep.equal(['redismutex:fence'])
      expect(await redis.pttl('redismutex:fence')).to.be.within(1, 10_000)
    })

    it('works when Redis has forgotten the scripts', async () => {
      const mutex = create()
      await mutex.runExclusive(key, () => {})
      const lock = await mutex.acquireLock(key)
      await redis.script('FLUSH')
      await lock.release()
      await redis.script('FLUSH')
      await mutex.runExclusive(key, () => {})
    })

    it('is had by who waited when it came in a stall, just as another’s time was over', async () => {
      const holder = await create(connect()).acquireLock(key)
      const proxy = await startProxy(sharedRedis().port)
      const connection = client.create(proxy.port)
      const mutex = create(connection, { storeTimeout: 5000 })
      mutex.store.listen()
      await until(() => mutex.store.listeningSince < Number.POSITIVE_INFINITY)
      const began = performance.now()
      const first = mutex.acquireLock(key, { blockTime: 2000 })
      await connection.ping()
      const { setTimeout: original } = globalThis
      // The second's time is over, the grant comes, and nothing runs until the first's is over, too.
      globalThis.setTimeout = ((callback: () => void, ms: number) => {
        const stalled = () => {
          setImmediate(() => {
            proxy.resume()
            stall(began + 2050 - performance.now())
          })
          callback()
        }
        return original(ms > 900 && ms <= 1000 ? stalled : callback, ms)
      }) as typeof setTimeout
      const second = rejection(mutex.acquireLock(key, { blockTime: 1000 }))
      globalThis.setTimeout = original
      proxy.pause('replies')
      await holder.release()
      await (await first).release()
      expect(await second).to.be.instanceOf(BlockTimeExceedError)
    })

    it('is not called unreachable when the first of several keys left no time for the others', async () => {
      const proxy = await startProxy(sharedRedis().port)
      const mutex = create(client.create(proxy.port), { blockTime: 550 })
      await mutex.runExclusive(key, () => {})
      proxy.delay(150)
      const error = await rejection(mutex.acquireLock([`${key}:1`, `${key}:2`]))
      expect(error).to.be.instanceOf(BlockTimeExceedError)
    })
  })
}
