import {
  BlockTimeExceedError,
  MutexLockError,
  RedisMutex,
  redisStore,
  withRedisMutex,
} from '@redismutex/core'
import { expect } from 'chai'
import type { Redis } from 'ioredis'
import { Room, range, rejection } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'
import { redisClients } from '../support/clients.js'
import { freshKey, sharedRedis } from '../support/redis.js'

describe('withRedisMutex', () => {
  let redis: Redis
  let mutex: RedisMutex
  let key: string

  beforeEach(() => {
    redis = redisClients[0]?.create(sharedRedis().port) as Redis
    mutex = new RedisMutex(redis)
    atEnd(() => mutex.close())
    key = freshKey()
  })

  const isHeld = async (key: string): Promise<boolean> => (await redis.exists(`mutex:${key}`)) === 1

  describe('wraps a function', () => {
    it('that runs under a static key, one call at a time', async () => {
      const room = new Room()
      const visit = withRedisMutex(redis, key)(room.visit)
      await Promise.all(range(10).map(() => visit()))
      expect(room).to.include({ entered: 10, most: 1 })
    })

    it('that holds the lock while it runs, and not after it', async () => {
      const held = withRedisMutex(redis, key)(() => isHeld(key))
      expect(await held()).to.equal(true)
      expect(await isHeld(key)).to.equal(false)
    })

    it('that excludes mutexes, and other functions with the same key', async () => {
      const lock = await mutex.acquireLock(key)
      const order: string[] = []
      const one = withRedisMutex(redis, key)(() => order.push('one'))()
      const other = withRedisMutex(redis, key)(() => order.push('other'))()
      order.push('mutex')
      await lock.release()
      await Promise.all([one, other])
      expect(order[0]).to.equal('mutex')
      expect(order.slice(1).sort()).to.deep.equal(['one', 'other'])
    })

    it('with a key that is made from its arguments', async () => {
      const seen: unknown[][] = []
      const save = withRedisMutex(redis, (...args: [{ id: number }, string]) => {
        seen.push(args)
        return `${key}:${args[0].id}`
      })(async (user: { id: number }, name: string) => [
        user.id,
        name,
        await isHeld(`${key}:1`),
        await isHeld(`${key}:2`),
      ])
      expect(await save({ id: 1 }, 'a')).to.deep.equal([1, 'a', true, false])
      expect(await save({ id: 2 }, 'b')).to.deep.equal([2, 'b', false, true])
      expect(seen).to.deep.equal([
        [{ id: 1 }, 'a'],
        [{ id: 2 }, 'b'],
      ])
    })

    it('with a key that comes later, or several keys', async () => {
      const keys = [`${key}:1`, `${key}:2`]
      const both = async () => [await isHeld(keys[0] as string), await isHeld(keys[1] as string)]
      expect(await withRedisMutex(redis, keys)(both)()).to.deep.equal([true, true])
      expect(await withRedisMutex(redis, () => keys)(both)()).to.deep.equal([true, true])
      expect(await withRedisMutex(redis, async () => keys)(both)()).to.deep.equal([true, true])
      expect(await both()).to.deep.equal([false, false])
    })

    it('and passes this, arguments and result on', async () => {
      const result = { result: true }
      const wrapped = withRedisMutex(redis, function (this: { id: string }) {
        return `${key}:${this.id}`
      })(async function (this: { id: string }, ...args: number[]) {
        return [this, args, result, await isHeld(`${key}:me`)]
      })
      const self = { id: 'me' }
      const got = await wrapped.call(self, 1, 2, 3)
      expect(got[0]).to.equal(self)
      expect(got[1]).to.deep.equal([1, 2, 3])
      expect(got[2]).to.equal(result)
      expect(got[3]).to.equal(true)
    })

    it('and gives a promise even when it does not', async () => {
      const one = withRedisMutex(redis, key)(() => 1)()
      expect(one).to.be.instanceOf(Promise)
      expect(await one).to.equal(1)
    })

    it('and rejects as it does, with the lock given back', async () => {
      const failure = new Error('of the function')
      const thrower = () => {
        throw failure
      }
      expect(await rejection(withRedisMutex(redis, key)(thrower)())).to.equal(failure)
      const rejecter = () => Promise.reject(failure)
      expect(await rejection(withRedisMutex(redis, key)(rejecter)())).to.equal(failure)
      expect(await isHeld(key)).to.equal(false)
    })

    it('and rejects, without running it, when no key could be made', async () => {
      const ran = () => expect.fail('it ran')
      const failure = new Error('of the key')
      const thrower = () => {
        throw failure
      }
      expect(await rejection(withRedisMutex(redis, thrower)(ran)())).to.equal(failure)
      const rejecter = () => Promise.reject(failure)
      expect(await rejection(withRedisMutex(redis, rejecter)(ran)())).to.equal(failure)
      for (const wrong of [undefined, '', 42, null, [], ['']]) {
        const error = await rejection(withRedisMutex(redis, () => wrong as string)(ran)())
        expect(error).to.be.instanceOf(TypeError)
      }
    })

    it('with the options of a mutex', async () => {
      const holder = await mutex.acquireLock(key)
      const ran = () => expect.fail('it ran')
      expect(
        await rejection(withRedisMutex(redis, key, { blocking: false })(ran)()),
      ).to.be.instanceOf(MutexLockError)
      expect(
        await rejection(withRedisMutex(redis, key, { blockTime: 20 })(ran)()),
      ).to.be.instanceOf(BlockTimeExceedError)
      const elsewhere = withRedisMutex(redis, key, { keyPrefix: `${key}:` })(() => 'ran')
      expect(await elsewhere()).to.equal('ran')
      await holder.release()
    })
  })

  describe('decorates a method', () => {
    it('of an instance, of a class, and a private one', async () => {
      const of = (name: string) => `${key}:${name}`

      class Cart {
        readonly #id: string

        constructor(id: string) {
          this.#id = id
        }

        @withRedisMutex(redis, (id: string) => of(id))
        async add(id: string, item: string): Promise<unknown[]> {
          return [this.#id, id, item, await isHeld(of(id))]
        }

        @withRedisMutex(redis, function (this: Cart) {
          return of(this.#id)
        })
        async clear(): Promise<boolean> {
          return isHeld(of(this.#id))
        }

        @withRedisMutex(redis, function (this: { name: string }) {
          return of(this.name)
        })
        static async all(): Promise<boolean> {
          return isHeld(of('Cart'))
        }

        @withRedisMutex(redis, of('hidden'))
        async #hidden(): Promise<boolean> {
          return isHeld(of('hidden'))
        }

        hidden(): Promise<boolean> {
          return this.#hidden()
        }
      }

      const cart = new Cart('mine')
      expect(await cart.add('x', 'item')).to.deep.equal(['mine', 'x', 'item', true])
      expect(await cart.clear()).to.equal(true)
      expect(await Cart.all()).to.equal(true)
      expect(await cart.hidden()).to.equal(true)
      for (const name of ['x', 'mine', 'Cart', 'hidden']) {
        expect(await isHeld(of(name))).to.equal(false)
      }
    })

    it('of all instances together', async () => {
      const room = new Room()
      class Visitor {
        @withRedisMutex(redis, key)
        async visit(): Promise<void> {
          await room.visit()
        }
      }
      await Promise.all(range(10).map(() => new Visitor().visit()))
      expect(room).to.include({ entered: 10, most: 1 })
    })

    it('that may be overridden and called by way of super', async () => {
      class Base {
        @withRedisMutex(redis, key)
        async run(): Promise<boolean> {
          return isHeld(key)
        }
      }
      class Derived extends Base {
        override async run(): Promise<boolean> {
          return (await super.run()) && !(await isHeld(key))
        }
      }
      expect(await new Derived().run()).to.equal(true)
    })
  })

  describe('refuses with a TypeError', () => {
    it('to wrap what is no function', () => {
      const exclusive = withRedisMutex(redis, key) as (body: unknown) => unknown
      for (const body of [undefined, null, 'text', 5, {}, [], Symbol('s')]) {
        expect(() => exclusive(body)).to.throw(TypeError, /wraps functions and methods, got/)
      }
    })

    it('to wrap a generator, which would run without the lock', () => {
      const exclusive = withRedisMutex(redis, key) as (body: unknown, context?: unknown) => never
      const decorate = () =>
        class {
          @exclusive
          async *rows(): AsyncGenerator<number> {
            yield 1
          }
        }
      for (const wrap of [
        () => exclusive(function* () {}),
        () => exclusive(async function* () {}),
        decorate,
      ]) {
        expect(wrap).to.throw(TypeError, /got a generator/)
      }
    })

    it('to decorate anything but a method', () => {
      const any = withRedisMutex(redis, key) as (body: unknown, context: unknown) => never
      for (const [kind, decorate] of [
        [
          'class',
          () => {
            @any
            class Decorated {}
            return Decorated
          },
        ],
        [
          'getter',
          () =>
            class {
              @any
              get decorated(): number {
                return 1
              }
            },
        ],
        [
          'setter',
          () =>
            class {
              @any
              set decorated(_value: number) {}
            },
        ],
        [
          'field',
          () =>
            class {
              @any
              decorated = 1
            },
        ],
        [
          'accessor',
          () =>
            class {
              @any
              accessor decorated = 1
            },
        ],
      ] as const) {
        expect(decorate, kind).to.throw(TypeError, `wraps functions and methods, got ${kind}`)
      }
    })

    it('to be used as an old decorator', () => {
      const old = withRedisMutex(redis, key) as (...args: unknown[]) => unknown
      class Decorated {
        static all() {}
        one() {}
      }
      for (const [target, name] of [
        [Decorated, 'all'],
        [Decorated.prototype, 'one'],
      ] as const) {
        const descriptor = Object.getOwnPropertyDescriptor(target, name)
        expect(() => old(target, name, descriptor)).to.throw(TypeError)
      }
    })

    it('a key that can be none, before anything is wrapped', () => {
      for (const wrong of [undefined, null, 42, {}, true]) {
        expect(() => withRedisMutex(redis, wrong as never)).to.throw(
          TypeError,
          /keyOrFunction must be a key or a function/,
        )
      }
    })

    it('a static key that is none', () => {
      for (const wrong of ['', '\ud800', [], [''], ['a', 42]]) {
        expect(() => withRedisMutex(redis, wrong as string)).to.throw(TypeError, /^key must be a/)
      }
      const long = 'x'.repeat(257)
      expect(() => withRedisMutex(redis, long, { keyPrefix: '' })).to.throw(TypeError, /256 bytes/)
    })

    it('options as a mutex does', () => {
      expect(() => withRedisMutex(redis, key, { blocktime: 5 } as never)).to.throw(TypeError)
      expect(() => withRedisMutex(redis, key, { delay: 5000 })).to.throw(RangeError)
      expect(() => withRedisMutex(redis, key, null as never)).to.throw(TypeError)
    })
  })

  it('shares its core with every mutex of the client', async () => {
    const holder = await mutex.acquireLock(key)
    const waiter = withRedisMutex(redis, key)(() => {})()
    expect(redisStore(redis)).to.equal(mutex.store)
    await holder.release()
    await waiter
  })
})
