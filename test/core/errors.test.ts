import { inspect } from 'node:util'
import * as core from '@redismutex/core'
import {
  BlockTimeExceedError,
  ClientGoneError,
  Mutex,
  MutexClosedError,
  MutexError,
  MutexExpiredError,
  MutexLockError,
  MutexLostError,
  type MutexOptions,
  MutexQueueFullError,
  MutexReentryError,
  MutexStoreError,
  MutexUnlockError,
  memoryStore,
  RedisMutex,
} from '@redismutex/core'
import { expect } from 'chai'
import type { Redis } from 'ioredis'
import { aborted, EXPIRING, patiently, rejection } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'
import { redisClients } from '../support/clients.js'
import { freePort } from '../support/ports.js'
import { freshKey, sharedRedis } from '../support/redis.js'

const kinds = [
  [MutexLockError, 'MutexLockError', 'ERR_MUTEX_LOCKED'],
  [BlockTimeExceedError, 'BlockTimeExceedError', 'ERR_MUTEX_BLOCK_TIME_EXCEEDED'],
  [MutexQueueFullError, 'MutexQueueFullError', 'ERR_MUTEX_QUEUE_FULL'],
  [MutexReentryError, 'MutexReentryError', 'ERR_MUTEX_REENTRY'],
  [MutexUnlockError, 'MutexUnlockError', 'ERR_MUTEX_UNLOCK'],
  [MutexLostError, 'MutexLostError', 'ERR_MUTEX_LOST'],
  [MutexExpiredError, 'MutexExpiredError', 'ERR_MUTEX_EXPIRED'],
  [ClientGoneError, 'ClientGoneError', 'ERR_MUTEX_CLIENT_GONE'],
  [MutexStoreError, 'MutexStoreError', 'ERR_MUTEX_STORE'],
  [MutexClosedError, 'MutexClosedError', 'ERR_MUTEX_CLOSED'],
] as const

describe('an error of a mutex', () => {
  for (const [Kind, name, code] of kinds) {
    it(`is told apart by name and code: ${name}`, () => {
      const cause = new Error('cause')
      const error = new Kind('message', { key: 'key', cause })
      expect(error).to.be.instanceOf(Error)
      expect(error).to.be.instanceOf(MutexError)
      expect(error).to.be.instanceOf(Kind)
      expect(error).to.include({ name, code, message: 'message', key: 'key', cause })
      expect(error.stack).to.match(new RegExp(`^${name}: message`))
      expect(String(error)).to.equal(`${name}: message`)
      for (const [Other] of kinds) {
        expect(error instanceof Other, Other.name).to.equal(Other === Kind)
      }
      expect(new Kind('message')).to.have.property('key', undefined)
      expect(new Kind('message')).not.to.have.own.property('cause')
    })
  }

  it('has a class for each that is exported, and no other', () => {
    const exported = Object.keys(core).filter((name) => name.endsWith('Error'))
    expect(exported.sort()).to.deep.equal([...kinds.map(([, name]) => name), 'MutexError'].sort())
  })

  it('is not anything else', () => {
    for (const value of [
      ...[undefined, null, 0, 'ERR_MUTEX_LOCKED', {}, { code: 'ERR_MUTEX_LOCKED' }],
      new Error('error'),
      Object.assign(new Error('error'), { code: 'ERR_MUTEX_NONSENSE' }),
      Object.assign(new Error('error'), { code: 'toString' }),
      Object.assign(new Error('error'), { code: 1 }),
    ]) {
      expect((value as unknown) instanceof MutexError).to.equal(false)
      expect((value as unknown) instanceof MutexLockError).to.equal(false)
    }
  })

  it('may be extended, without being mistaken for what extends it', () => {
    class BusyError extends MutexLockError {}
    class StrangeError extends BusyError {}
    const error = new BusyError('busy')
    expect(error).to.be.instanceOf(BusyError)
    expect(error).to.be.instanceOf(MutexLockError)
    expect(error).to.be.instanceOf(MutexError)
    expect(error).not.to.be.instanceOf(StrangeError)
    expect(new MutexLockError('locked')).not.to.be.instanceOf(BusyError)
    expect(error).to.have.property('name', 'BusyError')
  })

  it('is recognised across a second copy of the package, both ways', async () => {
    const file = new URL('../../packages/core/src/errors.ts?second', import.meta.url)
    const copy = (await import(file.href)) as typeof core
    expect(copy.MutexLockError).not.to.equal(MutexLockError)
    for (const [Kind, name] of kinds) {
      const Copied = copy[name]
      expect(new Copied('message')).to.be.instanceOf(Kind)
      expect(new Copied('message')).to.be.instanceOf(MutexError)
      expect(new Kind('message')).to.be.instanceOf(Copied)
      expect(new Kind('message')).to.be.instanceOf(copy.MutexError)
      for (const [Other, other] of kinds) {
        expect(new Copied('message') instanceof Other).to.equal(name === other)
      }
    }
  })
})

describe('the key', () => {
  const SECRET = 'a-secret-session'
  let key: string

  beforeEach(() => {
    key = freshKey(SECRET)
  })

  /** It is there to be asked for, and in nothing that a logger would write. */
  function isSilent(error: unknown): void {
    expect(error).to.be.an('error')
    const { message, stack } = error as Error
    const deep = inspect(error, { depth: 20, maxArrayLength: null, maxStringLength: null })
    for (const text of [message, stack, String(error), deep, JSON.stringify(error)]) {
      expect(text).to.be.a('string').that.does.not.include(SECRET)
    }
    for (let cause = error; cause instanceof Error; cause = cause.cause) {
      expect(JSON.stringify(cause)).not.to.include(SECRET)
    }
  }

  function isSilentlyTold(error: unknown): void {
    isSilent(error)
    expect(error).to.have.property('key', key)
  }

  const makers: [string, (options?: MutexOptions) => Mutex][] = [
    ['memoryStore', (options) => new Mutex(memoryStore(), options)],
    ...redisClients.map((client): [string, (options?: MutexOptions) => Mutex] => [
      client.name,
      (options) => new RedisMutex(client.create(sharedRedis().port), options),
    ]),
  ]

  for (const [name, make] of makers) {
    describe(`by way of ${name} is in an error but not to be seen`, () => {
      const create = (options?: MutexOptions) => {
        const mutex = make(options)
        atEnd(() => mutex.close())
        return mutex
      }

      it('when it is held', async () => {
        const mutex = create({ maxWaiting: 1 })
        const holder = await mutex.acquireLock(key)
        const exceeded = rejection(mutex.acquireLock(key, { blockTime: 20 }))
        isSilentlyTold(await rejection(mutex.acquireLock(key, { blocking: false })))
        isSilentlyTold(await rejection(mutex.acquireLock(key)))
        isSilentlyTold(await exceeded)
        await holder.release()
      })

      it('when it expires, or is closed', async () => {
        const mutex = create(EXPIRING)
        const lock = await patiently(() => mutex.acquireLock(key))
        isSilentlyTold(await aborted(lock.signal))
        isSilentlyTold(await rejection(lock.release()))
        isSilent(await rejection(lock.release()))
        const closed = await patiently(() => mutex.acquireLock(key))
        const { signal } = closed
        await mutex.close()
        isSilentlyTold(signal.reason)
        isSilentlyTold(await rejection(closed.release()))
        isSilentlyTold(await rejection(mutex.acquireLock(key)))
      })

      it('when it is no key', async () => {
        isSilent(await rejection(create().acquireLock(`${key}\ud800`)))
        isSilent(await rejection(create().acquireLock([key, `${key}\ud800`])))
        isSilent(await rejection(create().acquireLock(Object.assign(() => {}, { key }) as never)))
      })
    })
  }

  for (const client of redisClients) {
    describe(`by way of ${client.name}, in Redis, is in an error but not to be seen`, () => {
      let redis: Redis

      beforeEach(() => {
        redis = client.create(sharedRedis().port)
      })

      function create(connection: Redis, options?: object): RedisMutex {
        const mutex = new RedisMutex(connection, { storeTimeout: 3000, ...options })
        atEnd(() => mutex.close())
        return mutex
      }

      it('when it was lost', async () => {
        const mutex = create(redis, {
          expiry: Number.POSITIVE_INFINITY,
          lease: 200,
        })
        const lock = await mutex.acquireLock(key)
        const { signal } = lock
        await redis.del(`mutex:${key}`)
        isSilentlyTold(await aborted(signal))
        isSilentlyTold(await rejection(lock.release()))
        const other = await mutex.acquireLock(key)
        await redis.del(`mutex:${key}`)
        isSilentlyTold(await rejection(other.release()))
      })

      it('when it was lost as one of several', async () => {
        const several = [freshKey('first'), key, freshKey('last')]
        const lock = await create(redis).acquireLock(several)
        await redis.del(`mutex:${key}`)
        const error = await rejection(lock.release())
        expect(error).to.be.instanceOf(MutexUnlockError)
        isSilentlyTold(error)
      })

      it('when Redis has something else under its name', async () => {
        await redis.lpush(`mutex:${key}`, 'x')
        const error = await rejection(create(redis).acquireLock(key))
        expect(error).to.be.instanceOf(MutexStoreError)
        expect(error)
          .to.have.property('message')
          .that.matches(/WRONGTYPE/)
        isSilentlyTold(error)
        await redis.del(`mutex:${key}`)
      })

      it('when Redis refuses the command', async () => {
        const user = freshKey('user')
        await redis.call('ACL', 'SETUSER', user, 'on', 'nopass', '~*', '&*', '+@all', '-evalsha')
        atEnd(() => redis.call('ACL', 'DELUSER', user))
        const refused = client.create(sharedRedis().port, { username: user, password: 'any' })
        const error = await rejection(create(refused).acquireLock(key))
        expect(error).to.be.instanceOf(MutexStoreError)
        expect(error)
          .to.have.property('message')
          .that.matches(/NOPERM/)
        expect(error).to.have.property('cause').that.is.an('error')
        isSilentlyTold(error)
      })

      it('when a release is refused', async () => {
        const user = freshKey('user')
        await redis.call('ACL', 'SETUSER', user, 'on', 'nopass', '~*', '&*', '+@all')
        atEnd(() => redis.call('ACL', 'DELUSER', user))
        const refused = client.create(sharedRedis().port, { username: user, password: 'any' })
        const lock = await create(refused).acquireLock(key)
        await redis.call('ACL', 'SETUSER', user, '-evalsha')
        const error = await rejection(lock.release())
        expect(error).to.be.instanceOf(MutexStoreError)
        expect(error).to.have.property('cause').that.is.an('error')
        isSilentlyTold(error)
        await redis.call('ACL', 'SETUSER', user, '+@all')
      })

      it('when Redis is not there', async () => {
        const dead = client.create(await freePort(), { maxRetriesPerRequest: 0 })
        const error = await rejection(create(dead).acquireLock(key))
        expect(error).to.be.instanceOf(MutexStoreError)
        isSilentlyTold(error)
      })

      it('when the client has been closed', async () => {
        const closed = client.create(sharedRedis().port)
        await closed.quit()
        const error = await rejection(create(closed).acquireLock(key))
        expect(error).to.be.instanceOf(MutexStoreError)
        isSilentlyTold(error)
      })

      it("when it can't be shared with other libraries", async () => {
        const mutex = create(redis, { keyPrefix: '' })
        isSilent(await rejection(mutex.acquireLock(`${key}{`)))
        isSilent(await rejection(mutex.acquireLock(key.repeat(20))))
      })
    })
  }
})
