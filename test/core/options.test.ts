import {
  BlockTimeExceedError,
  Mutex,
  type MutexOptions,
  memoryStore,
  RedisMutex,
  type RedisMutexOptions,
} from '@redismutex/core'
import { expect } from 'chai'
import type { Redis } from 'ioredis'
import { range, rejection } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'
import { redisClients } from '../support/clients.js'
import { freshKey, sharedRedis } from '../support/redis.js'

/** Longest delay of a timer. */
const LONGEST = 2 ** 31 - 1
const INFINITY = Number.POSITIVE_INFINITY

describe('the options of a mutex', () => {
  const create = (options?: unknown) => new Mutex(memoryStore(), options as MutexOptions)

  const refusal = (options: unknown): Error => {
    try {
      create(options)
    } catch (error) {
      expect(error).to.be.an('error')
      return error as Error
    }
    return expect.fail('they were accepted')
  }

  describe('by default', () => {
    it('let wait for 5 s', () => {
      expect(() => create({ delay: 4999 })).not.to.throw()
      expect(() => create({ delay: 5000 })).to.throw(RangeError, /blockTime 5000/)
    })

    it('let hold for 7 s', () => {
      expect(() => create({ lease: 7000 })).not.to.throw()
      expect(() => create({ lease: 7001 })).to.throw(RangeError, /expiry 7000/)
    })

    it('let wait, without a bound to how many', async () => {
      const mutex = create()
      atEnd(() => mutex.close())
      const key = freshKey()
      const holder = await mutex.acquireLock(key)
      const waiters = range(1000).map(() => mutex.acquireLock(key))
      expect(mutex.stats()).to.include({ waiting: 1000, refused: 0 })
      await holder.release()
      for (const waiter of waiters) await (await waiter).release()
    })

    it('give way to what is set: half of blockTime for delay, 2 s more than it for expiry', () => {
      expect(() => create({ blockTime: 100 })).not.to.throw()
      expect(() => create({ blockTime: 1 })).not.to.throw()
      expect(() => create({ blockTime: 60_000 })).not.to.throw()
      expect(() => create({ blockTime: LONGEST })).not.to.throw()
      expect(() => create({ blockTime: INFINITY })).not.to.throw()
      expect(() => create({ blockTime: 60_000, lease: 62_000 })).not.to.throw()
      expect(() => create({ blockTime: 60_000, lease: 62_001 })).to.throw(RangeError, /62000/)
      expect(() => create({ expiry: 8000 })).not.to.throw()
      expect(() => create({ expiry: 5001 })).not.to.throw()
    })
  })

  describe('are refused in a wrong order', () => {
    for (const [options, message] of [
      [{ delay: 500, blockTime: 500 }, /delay .*less than blockTime.*500.*500/],
      [{ delay: 501, blockTime: 500 }, /delay .*less than blockTime.*501.*500/],
      [{ delay: 6000 }, /delay .*less than blockTime.*6000.*5000/],
      [{ expiry: 1000, blockTime: 1000 }, /expiry .*more than blockTime.*1000.*1000/],
      [{ expiry: 999, blockTime: 1000 }, /expiry .*more than blockTime.*999.*1000/],
      [{ expiry: 5000 }, /expiry .*more than blockTime.*5000.*5000/],
      [{ expiry: 9000, blockTime: INFINITY }, /expiry .*more than blockTime.*9000.*Infinity/],
      [{ lease: 8001, expiry: 8000 }, /lease .*not be more than expiry.*8001.*8000/],
    ] as const) {
      it(JSON.stringify(options).replace('null', 'Infinity'), () => {
        expect(() => create(options)).to.throw(RangeError, message)
      })
    }

    it('but expiry and blockTime may both be Infinity', () => {
      expect(() => create({ expiry: INFINITY, blockTime: INFINITY })).not.to.throw()
    })
  })

  const times = ['blockTime', 'delay', 'expiry', 'lease', 'storeTimeout'] as const
  const names = ['blocking', ...times, 'maxWaiting'] as const

  for (const name of names) {
    describe(name, () => {
      const wrongTypes: unknown[] = [null, 'text', '500', {}, [], () => {}, 5n, Symbol('s')]
      wrongTypes.push(name === 'blocking' ? 1 : true, Object.create(null))
      for (const value of wrongTypes) {
        it(`is refused as ${Array.isArray(value) ? '[]' : typeof value} with a TypeError`, () => {
          const error = refusal({ [name]: value })
          expect(error).to.be.instanceOf(TypeError)
          expect(error.message).to.match(new RegExp(`^${name} must be .+, got .+`))
        })
      }

      if (name === 'blocking') return
      const wrong = [Number.NaN, -1, 0, -INFINITY]
      if (name === 'maxWaiting') wrong.push(1.5, 0.5)
      else wrong.push(LONGEST + 1)
      if (name === 'delay' || name === 'lease' || name === 'storeTimeout') wrong.push(INFINITY)
      for (const value of wrong) {
        it(`is refused as ${value} with a RangeError`, () => {
          const error = refusal({ [name]: value })
          expect(error).to.be.instanceOf(RangeError)
          expect(error.message).to.match(new RegExp(`^${name} must be a .*number.+, got ${value} `))
        })
      }

      it('is taken for its default when it is undefined', () => {
        expect(() => create({ [name]: undefined })).not.to.throw()
      })
    })
  }

  it('are all checked, not only up to the first that is right', () => {
    expect(refusal({ blockTime: 100, maxWaiting: 0 }).message).to.match(/maxWaiting/)
  })

  it('are refused when nobody knows them, with those that are known', () => {
    for (const name of ['blocktime', 'block_time', 'ttl', 'keyPrefix', 'signal', '__proto__x']) {
      const error = refusal({ [name]: 1 })
      expect(error).to.be.instanceOf(TypeError)
      expect(error.message)
        .to.include(name)
        .and.match(/known .*blockTime/)
    }
  })

  it('have to be an object', () => {
    for (const options of [null, 5, 'text', true, [], () => {}, Symbol('s')]) {
      expect(refusal(options)).to.be.instanceOf(TypeError)
      expect(refusal(options).message).to.match(/options must be an object, got/)
    }
  })

  it('are not read again later', async () => {
    const options = { blockTime: 20, maxWaiting: 1 }
    const mutex = create(options)
    options.blockTime = 100_000
    const key = freshKey()
    const holder = await mutex.acquireLock(key)
    expect(await rejection(mutex.acquireLock(key))).to.be.instanceOf(BlockTimeExceedError)
    await holder.release()
  })

  it('may be shared by several mutexes, and frozen', () => {
    const options = Object.freeze({ blockTime: 100 })
    create(options)
    create(options).with(options)
  })

  describe('of a variant', () => {
    it('are those of its mutex where they are undefined', () => {
      const mutex = create({ blockTime: 100, maxWaiting: 2 })
      expect(mutex.with({ blockTime: undefined, maxWaiting: 3 }).options).to.deep.equal({
        blockTime: 100,
        maxWaiting: 3,
      })
    })

    it('are checked like those of a mutex', () => {
      const mutex = create({ expiry: 6000 })
      expect(() => mutex.with({ blockTime: 6000 })).to.throw(RangeError, /expiry.*blockTime/)
      expect(() => mutex.with({ nonsense: 1 } as never)).to.throw(TypeError, /nonsense/)
      expect(() => mutex.with(null as never)).to.throw(TypeError, /options must be an object/)
      expect(() => mutex.with(undefined as never)).to.throw(TypeError, /must be an object/)
    })
  })

  describe('of a call', () => {
    const failure = (options: unknown) => {
      const mutex = create({ delay: 100, expiry: 8000 })
      return rejection(mutex.acquireLock(freshKey(), options as never))
    }

    it('are refused by a rejection, not a throw', async () => {
      for (const options of [null, 5, 'text', []]) {
        const error = await failure(options)
        expect(error).to.be.instanceOf(TypeError)
        expect(error)
          .to.have.property('message')
          .that.matches(/options must be an object, got/)
      }
    })

    it('are checked like those of a mutex', async () => {
      for (const [options, type, message] of [
        [{ nonsense: 1 }, TypeError, /nonsense.*blocking, blockTime, signal/],
        [{ delay: 1 }, TypeError, /delay/],
        [{ blocking: 'yes' }, TypeError, /^blocking must be true or false, got 'yes'/],
        [{ blocking: null }, TypeError, /^blocking must be true or false, got null/],
        [{ blockTime: null }, TypeError, /^blockTime must be .*, got null/],
        [{ blockTime: '5' }, TypeError, /^blockTime must be .*, got '5'/],
        [{ blockTime: Number.NaN }, RangeError, /^blockTime must be .*, got NaN/],
        [{ blockTime: -1 }, RangeError, /^blockTime must be .*, got -1/],
        [{ blockTime: 100 }, RangeError, /delay .*less than blockTime/],
        [{ blockTime: 8000 }, RangeError, /expiry .*more than blockTime/],
        [{ signal: {} }, TypeError, /^signal must be an AbortSignal, got an object of Object/],
        [{ signal: new AbortController() }, TypeError, /^signal .* AbortController/],
        [{ signal: null }, TypeError, /^signal must be an AbortSignal, got null/],
      ] as const) {
        const error = await failure(options)
        expect(error).to.be.instanceOf(type)
        expect(error).to.have.property('message').that.matches(message)
      }
    })

    it('are checked before anything is locked', async () => {
      const mutex = create()
      await rejection(mutex.acquireLock(['a', 'b'], { blockTime: -1 }))
      expect(mutex.stats()).to.include({ held: 0, waiting: 0, acquired: 0 })
    })
  })

  describe('of a RedisMutex', () => {
    let redis: Redis

    beforeEach(() => {
      redis = redisClients[0]?.create(sharedRedis().port) as Redis
    })

    const create = (options?: unknown) => {
      const mutex = new RedisMutex(redis, options as RedisMutexOptions)
      atEnd(() => mutex.close())
      return mutex
    }

    it('are those of a mutex, and keyPrefix', () => {
      create({ blockTime: 100, keyPrefix: 'prefix:' })
      expect(() => create({ blocktime: 1 })).to.throw(TypeError, /blocktime.*keyPrefix/)
      expect(() => create({ delay: 5000 })).to.throw(RangeError, /delay/)
      expect(() => create(null)).to.throw(TypeError, /options must be an object/)
      expect(create({ keyPrefix: undefined }).store.nameOf('key')).to.equal('mutex:key')
    })

    for (const [keyPrefix, type] of [
      ...[null, 5, {}, true, () => {}].map((value) => [value, TypeError] as const),
      ...['\ud800', 'x'.repeat(257), 'a{b', 'a}b', '{}', 'redismutex:', 'redismutex:x'].map(
        (value) => [value, TypeError] as const,
      ),
    ]) {
      const shown = typeof keyPrefix === 'string' ? JSON.stringify(keyPrefix) : String(keyPrefix)
      it(`refuse ${shown.slice(0, 20)} as keyPrefix`, () => {
        expect(() => create({ keyPrefix })).to.throw(type, /^keyPrefix must .+, got .+/)
      })
    }

    for (const keyPrefix of ['', '{app}', '{app}:', 'app:{x}:', 'ü', 'x'.repeat(256)]) {
      it(`accept '${keyPrefix.slice(0, 20)}' as keyPrefix`, async () => {
        const mutex = create({ keyPrefix })
        const key = freshKey()
        const lock = await mutex.acquireLock(key)
        expect(await redis.get(keyPrefix + key)).to.equal(lock.value)
        await lock.release()
      })
    }
  })
})
