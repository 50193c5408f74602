import { MutexStoreError, RedisMutex } from '@redismutex/core'
import { expect } from 'chai'
import type { Redis, RedisOptions } from 'ioredis'
import { rejection, until } from '../conformance/ground.js'
import { giveUpNext } from '../faults/wire.js'
import { atEnd } from '../support/cleanup.js'
import { allClients, type ClientOptions, redisClients } from '../support/clients.js'
import { startProxy } from '../support/proxy.js'
import { freshKey, freshPrefix, sharedRedis, startRedis } from '../support/redis.js'

/** What a user may have set for the whole client. */
const settings: Record<string, RedisOptions> = {
  'nothing set': {},
  'enableOfflineQueue: false': { enableOfflineQueue: false },
  'maxRetriesPerRequest: null': { maxRetriesPerRequest: null },
  'maxRetriesPerRequest: 0': { maxRetriesPerRequest: 0 },
  'maxRetriesPerRequest: 1': { maxRetriesPerRequest: 1 },
  'commandTimeout: 5000': { commandTimeout: 5000 },
  'autoResendUnfulfilledCommands: false': { autoResendUnfulfilledCommands: false },
  'autoResubscribe: false': { autoResubscribe: false },
  "keyPrefix: 'client:'": { keyPrefix: 'client:' },
  'lazyConnect: true': { lazyConnect: true },
  'enableAutoPipelining: true': { enableAutoPipelining: true },
  'enableReadyCheck: false': { enableReadyCheck: false },
  'protocol: 2': { protocol: 2 },
  'protocol: 3': { protocol: 3 },
  "protocol: 3, replyMapping: 'resp3'": { protocol: 3, replyMapping: 'resp3' },
  'stringNumbers: true': { stringNumbers: true },
  'showFriendlyErrorStack: true': { showFriendlyErrorStack: true },
  'db: 5': { db: 5 },
  'retryStrategy: null': { retryStrategy: () => null },
  'reconnectOnError: 2': { reconnectOnError: () => 2 },
}

/** Acquiring, waiting, handing over, renewing, releasing and closing. */
async function life(here: Redis, there: Redis, prefix: string): Promise<void> {
  const options = {
    keyPrefix: prefix,
    blockTime: 15_000,
    delay: 12_000,
    expiry: 60_000,
    lease: 4000,
    // Dozens of clients connect in this moment.
    storeTimeout: 10_000,
  }
  const ready = (redis: Redis) =>
    redis.status === 'ready' ||
    redis.status === 'wait' ||
    new Promise((resolve) => redis.once('ready', resolve))
  await Promise.all([here, there].map(ready))
  const [mutex, other] = [new RedisMutex(here, options), new RedisMutex(there, options)]
  const lockName = `${prefix}key`
  const queueName = `redismutex:queue:{${here.options.keyPrefix}${lockName}}`
  try {
    const held = await mutex.acquireLock('key')
    expect(await there.get(lockName)).to.equal(held.value)
    const left = Number(await there.pttl(lockName))
    const waiting = other.acquireLock('key')
    // If anything fails before, that is what is told of.
    waiting.catch(() => {})
    await until(async () => Number(await here.zcard(queueName)) === 1)
    await held.release()
    const next = await waiting
    expect(next.waited, 'it was told').to.be.below(12_000)
    expect(left).to.be.within(1, 4000)
    // The lease has been made whole again once half of it was gone.
    await until(async () => Number(await here.pttl(lockName)) < 2200)
    await until(async () => Number(await here.pttl(lockName)) > 3000)
    expect(next.signal.reason).to.equal(undefined)
    expect(BigInt(next.fencingToken as string) > 0n).to.equal(true)
    await next.release()
    expect(Number(await here.exists(lockName, queueName))).to.equal(0)
  } finally {
    await Promise.all([mutex.close(), other.close()])
  }
  expect(await here.ping()).to.equal('PONG')
}

for (const client of allClients) {
  describe(`a client of ${client.name} with`, () => {
    const lives = new Map<string, Promise<void>>()

    // They wait for leases: all at the same time.
    before(() => {
      for (const [name, options] of Object.entries(settings)) {
        const connect = () => client.create(sharedRedis().port, options as ClientOptions)
        const lived = life(connect(), connect(), freshPrefix())
        lived.catch(() => {})
        lives.set(name, lived)
      }
    })

    for (const name of Object.keys(settings)) {
      it(`${name} works`, () => lives.get(name))
    }
  })
}

for (const client of redisClients) {
  describe(`what a client of ${client.name} does when it fails`, () => {
    const options = { blockTime: 8000, delay: 400, expiry: 20_000, lease: 6000, storeTimeout: 500 }
    let key: string
    let look: Redis
    let other: RedisMutex

    beforeEach(async () => {
      key = freshKey()
      look = client.create(sharedRedis().port)
      other = await mutexOn(client.create(sharedRedis().port))
    })

    async function mutexOn(redis: Redis, more: object = {}): Promise<RedisMutex> {
      const mutex = new RedisMutex(redis, { ...options, ...more })
      atEnd(() => mutex.close())
      await mutex.with({ storeTimeout: 10_000 }).runExclusive(freshKey(), () => {})
      return mutex
    }

    const queued = (count: number) =>
      until(async () => (await look.zcard(`redismutex:queue:{mutex:${key}}`)) === count)

    it('without sending again: a lock whose reply was lost is given back, and is nobody’s for long', async () => {
      const proxy = await startProxy(sharedRedis().port)
      const mutex = await mutexOn(
        client.create(proxy.port, { autoResendUnfulfilledCommands: false }),
        { storeTimeout: 5000 },
      )
      const lost = proxy.dropReplies(1)
      const error = await rejection(mutex.acquireLock(key))
      await lost
      expect(error).to.be.instanceOf(MutexStoreError)
      expect((error as Error).message).to.include('the connection broke before the reply came')
      const lock = await other.acquireLock(key)
      expect(lock.waited, 'no whole lease').to.be.below(5000)
      await lock.release()
    })

    it('without sending again: what was late already is taken back as well', async () => {
      const proxy = await startProxy(sharedRedis().port)
      const mutex = await mutexOn(
        client.create(proxy.port, { autoResendUnfulfilledCommands: false }),
        { storeTimeout: 200 },
      )
      proxy.pause('replies')
      await rejection(mutex.acquireLock(key))
      expect(await look.exists(`mutex:${key}`)).to.equal(1)
      proxy.cut()
      proxy.resume()
      const lock = await other.acquireLock(key)
      expect(lock.waited, 'no whole lease').to.be.below(5000)
      await lock.release()
    })

    it('without reconnecting: a subscriber that was killed is replaced', async () => {
      const redis = client.create(sharedRedis().port, {
        retryStrategy: () => null,
        connectionName: key,
      })
      const mutex = await mutexOn(redis, { delay: 7000 })
      const subscribers = async () => {
        const clients = String(await look.client('LIST')).split('\n')
        return clients
          .filter((line) => line.includes(` name=${key} `) && line.includes(' sub=1 '))
          .map((line) => /^id=(\d+)/.exec(line)?.[1] as string)
      }
      const held = await other.acquireLock(key)
      const waiting = mutex.acquireLock(key)
      await queued(1)
      await until(async () => (await subscribers()).length === 1)
      const [id] = (await subscribers()) as [string]
      await look.client('KILL', 'ID', id)
      await until(async () => {
        const [next] = await subscribers()
        return next !== undefined && next !== id
      })
      await held.release()
      const lock = await waiting
      expect(lock.waited, 'before it asks again').to.be.below(7000)
      await lock.release()
    })

    it('on a Cluster, sending again by a node’s own connection: a release that has happened is no error', async () => {
      const server = await startRedis({ args: ['--cluster-enabled', 'yes'] })
      atEnd(() => server.stop())
      const proxy = await startProxy(server.port)
      const admin = client.create(server.port)
      await admin.config('SET', 'cluster-announce-ip', '127.0.0.1')
      await admin.config('SET', 'cluster-announce-port', String(proxy.port))
      await admin.cluster('ADDSLOTSRANGE', 0, 16_383)
      await until(async () => /cluster_state:ok/.test(await admin.cluster('INFO')))
      const again = { clusterNodeRetryStrategy: () => 10 }
      const mutex = new RedisMutex(client.createCluster([proxy.port], again), options)
      atEnd(() => mutex.close())
      await mutex.runExclusive(freshKey(), () => {})
      const lock = await mutex.acquireLock(key)
      const lost = proxy.dropReplies((reply) => reply.toString() === ':1\r\n')
      await lock.release()
      await lost
    })

    for (const reply of ['OK', null, undefined, [], [null], {}]) {
      it(`answering ${JSON.stringify(reply)}: that is no refusal and no loss, but an error of the store`, async () => {
        const redis = client.create(sharedRedis().port)
        const mutex = await mutexOn(redis)
        const lock = await mutex.acquireLock(freshKey())
        const { evalsha } = redis
        Object.assign(redis, { evalsha: async () => reply })
        const errors = await Promise.all([
          rejection(mutex.acquireLock(key)),
          rejection(mutex.tryAcquire(freshKey())),
          rejection(lock.release()),
        ])
        Object.assign(redis, { evalsha })
        for (const error of errors) expect(error).to.be.instanceOf(MutexStoreError)
      })
    }

    it('without sending a release: it is taken back, and who waits for the next turn is told', async () => {
      const redis = client.create(sharedRedis().port)
      const patient = { blockTime: 30_000, expiry: 60_000, lease: 60_000, storeTimeout: 8000 }
      const mutex = await mutexOn(redis, patient)
      const lock = await mutex.acquireLock(key)
      const waiting = other.acquireLock(key)
      await queued(1)
      // The store's word that nobody waits is too old by now to pass the lock on.
      await new Promise((resolve) => setTimeout(resolve, 60))
      const next = rejection(mutex.acquireLock(key))
      const { evalsha } = redis
      Object.assign(redis, { evalsha: () => Promise.reject(new Error('not now')) })
      const released = rejection(lock.release())
      const errors = await Promise.all([released, next])
      Object.assign(redis, { evalsha })
      for (const error of errors) {
        expect(error)
          .to.be.instanceOf(MutexStoreError)
          .with.property('message')
          .that.includes('not now')
      }
      await (await waiting).release()
      expect(await look.exists(`mutex:${key}`)).to.equal(0)
    })

    it('throwing at once: that is an error of the store', async () => {
      const redis = client.create(sharedRedis().port)
      const mutex = await mutexOn(redis, { storeTimeout: 7000 })
      const { eval: run, evalsha } = redis
      const fail = () => {
        throw new Error('no way')
      }
      Object.assign(redis, { evalsha: fail })
      const called = await rejection(mutex.acquireLock(key))
      Object.assign(redis, { evalsha: () => Promise.reject(new Error('NOSCRIPT')), eval: fail })
      const sent = await rejection(mutex.acquireLock(key))
      Object.assign(redis, { evalsha, eval: run })
      for (const error of [called, sent]) {
        expect(error)
          .to.be.instanceOf(MutexStoreError)
          .with.property('message')
          .that.includes('no way')
      }
      await mutex.runExclusive(key, () => {})
    })

    it('a time limit of its own on commands: what lands after it is taken back', async () => {
      const proxy = await startProxy(sharedRedis().port)
      const mutex = await mutexOn(client.create(proxy.port, { commandTimeout: 600 }), {
        storeTimeout: 2000,
      })
      proxy.pause()
      const error = await rejection(mutex.acquireLock(key))
      expect((error as Error).message).to.include('Command timed out')
      proxy.resume()
      await (await other.acquireLock(key)).release()
      await until(async () => (await look.exists(`mutex:${key}`)) === 0)
    })

    it('a lease shorter than the way to Redis: blockTime ends the wait', async () => {
      const proxy = await startProxy(sharedRedis().port)
      const mutex = await mutexOn(client.create(proxy.port))
      proxy.delay(60)
      const hasty = mutex.with({ lease: 40, blockTime: 500, delay: 200, storeTimeout: 400 })
      expect(await rejection(hasty.acquireLock(key))).to.have.property(
        'name',
        'BlockTimeExceedError',
      )
    })

    it('a lock that landed when nobody could know it any more: who waits for it gets it', async () => {
      const redis = client.create(sharedRedis().port)
      const mutex = await mutexOn(redis)
      // Its inbox is open while somebody waits.
      const holder = await other.acquireLock(`${key}:inbox`)
      const waiting = mutex.acquireLock(`${key}:inbox`)
      await until(async () => (await look.zcard(`redismutex:queue:{mutex:${key}:inbox}`)) === 1)
      const land = giveUpNext(redis)
      await rejection(mutex.acquireLock(key))
      // It has been taken back by now, and lands all the same.
      await until(async () => (await mutex.tryAcquire(`${key}:next`)) !== null)
      await land()
      expect(await look.exists(`mutex:${key}`)).to.equal(1)
      const lock = await other.acquireLock(key)
      expect(lock.waited, 'no whole lease').to.be.below(5000)
      await lock.release()
      await holder.release()
      await (await waiting).release()
    })

    it('a lock that landed late on another node of a Cluster is nobody’s for long', async () => {
      const redis = client.create(sharedRedis().port)
      Object.assign(redis, { isCluster: true })
      const mutex = await mutexOn(redis, { lease: 15_000 })
      const land = giveUpNext(redis)
      await rejection(mutex.acquireLock(key))
      await until(async () => (await mutex.tryAcquire(`${key}:next`)) !== null)
      await land()
      expect(await look.exists(`mutex:${key}`)).to.equal(1)
      // Nobody waits who could tell of it.
      await until(async () => (await look.exists(`mutex:${key}`)) === 0)
    })

    it('so is one that the store had given up before the client did', async () => {
      const redis = client.create(sharedRedis().port)
      Object.assign(redis, { isCluster: true })
      const mutex = await mutexOn(redis, { lease: 15_000 })
      let gaveUp = () => {}
      const land = giveUpNext(redis, new Promise<void>((resolve) => (gaveUp = resolve)))
      const hasty = mutex.with({ storeTimeout: 50 })
      expect((await rejection(hasty.acquireLock(key))) as Error)
        .to.have.property('message')
        .that.includes('did not answer')
      gaveUp()
      // It is taken back now, and lands all the same.
      await mutex.runExclusive(`${key}:next`, () => {})
      await land()
      expect(await look.exists(`mutex:${key}`)).to.equal(1)
      await until(async () => (await look.exists(`mutex:${key}`)) === 0)
    })
  })
}
