import { AsyncLocalStorage } from 'node:async_hooks'
import { mock } from 'node:test'
import {
  BlockTimeExceedError,
  embeddedStore,
  Mutex,
  memoryStore,
  type Store,
} from '@redismutex/core'
import { expect } from 'chai'
import { Core } from '../../packages/core/src/core.js'
import { range, rejection } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'

describe('memoryStore', () => {
  it('shares nothing with another', async () => {
    const mutexes = [new Mutex(memoryStore()), new Mutex(memoryStore())]
    const locks = await Promise.all(mutexes.map((mutex) => mutex.acquireLock('key')))
    await Promise.all(locks.map((lock) => lock.release()))
    await Promise.all(mutexes.map((mutex) => mutex.close()))
  })

  it('takes keys as they are', async () => {
    const mutex = new Mutex(memoryStore())
    atEnd(() => mutex.close())
    const keys = ['__proto__', 'constructor', 'toString', 'mutex:a', 'sha256:', 'redismutex:queue:']
    const lock = await mutex.acquireLock(keys)
    expect(lock.keys).to.deep.equal(keys)
    await lock.release()
  })

  it('grants before anything else can happen', async () => {
    const mutex = new Mutex(memoryStore())
    atEnd(() => mutex.close())
    const acquiring = mutex.acquireLock('key')
    expect(mutex.stats()).to.include({ held: 1, waiting: 0 })
    await (await acquiring).release()
  })
})

describe('embeddedStore', () => {
  it('is one for all of the process', () => {
    expect(embeddedStore()).to.equal(embeddedStore())
    expect(embeddedStore()).not.to.equal(memoryStore())
  })
})

describe('two copies of this package', () => {
  it('do not share a store: each would know nothing of the other’s holders', async () => {
    const store = memoryStore()
    const mutex = new Mutex(store)
    atEnd(() => mutex.close())
    const copy: string = '../../packages/core/src/core.js?copy'
    const second = (await import(copy)) as { Core: typeof Core }
    expect(second.Core).not.to.equal(Core)
    expect(() => second.Core.of(store)).to.throw(TypeError, /one copy of @redismutex\/core/)
    expect(Core.of(store)).to.equal(Core.of(store))
  })
})

describe('a mutex', () => {
  const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length

  it('has one timer for all who wait for a key, and none when nobody does', async () => {
    const mutex = new Mutex(memoryStore(), { blockTime: 60_000 })
    atEnd(() => mutex.close())
    const lock = await mutex.acquireLock('key')
    const before = timers()
    const abort = new AbortController()
    const { signal } = abort
    const waiters = range(50).map(() => mutex.acquireLock('key', { signal }))
    expect(timers()).to.equal(before + 1)
    abort.abort()
    await Promise.allSettled(waiters)
    expect(timers()).to.equal(before)
    await lock.release()
  })

  it('keeps the process alive for none who wait without an end', async () => {
    const mutex = new Mutex(memoryStore(), { blockTime: 60_000, expiry: Number.POSITIVE_INFINITY })
    atEnd(() => mutex.close())
    const lock = await mutex.acquireLock('key')
    const before = timers()
    const leaving = rejection(mutex.acquireLock('key', { signal: AbortSignal.timeout(10) }))
    const forever = mutex.acquireLock('key', { blockTime: Number.POSITIVE_INFINITY })
    expect(timers()).to.equal(before + 1)
    await leaving
    expect(timers()).to.equal(before)
    await lock.release()
    await (await forever).release()
  })

  it('goes by timers that are faked, though the clock is not', async () => {
    const mutex = new Mutex(memoryStore())
    const lock = await mutex.acquireLock('key')
    mock.timers.enable({ apis: ['setTimeout'] })
    atEnd(() => mock.timers.reset())
    for (const _ of range(2)) {
      const waiting = rejection(mutex.acquireLock('key'))
      mock.timers.tick(5000)
      expect(await waiting).to.be.instanceOf(BlockTimeExceedError)
    }
    await lock.release()
  })

  it('goes on for who is next on nobody’s behalf, and not as the one who has left', async () => {
    const whose = new AsyncLocalStorage<string>()
    const asked: (string | undefined)[] = []
    const store: Store = { ...memoryStore(), acquire: () => asked.push(whose.getStore()) }
    const mutex = new Mutex(store)
    const first = whose.run('first', () => rejection(mutex.acquireLock('key', { blockTime: 20 })))
    const next = whose.run('next', () => rejection(mutex.acquireLock('key', { blockTime: 40 })))
    await Promise.all([first, next])
    expect(asked).to.deep.equal(['first', undefined])
  })

  it('remembers no key that nobody holds or waits for', async () => {
    const store = memoryStore()
    const mutex = new Mutex(store, { blockTime: 20 })
    atEnd(() => mutex.close())
    const { lines } = Core.of(store)
    await Promise.all(range(1000).map((n) => mutex.runExclusive(`key ${n}`, () => {})))
    expect(lines.size).to.equal(0)
    const lock = await mutex.acquireLock(['a', 'b'])
    await Promise.allSettled([
      mutex.acquireLock('a'),
      mutex.tryAcquire('b'),
      mutex.acquireLock('c', { signal: AbortSignal.abort() }),
    ])
    expect([...lines.keys()]).to.deep.equal(['a', 'b'])
    await lock.release()
    expect(lines.size).to.equal(0)
  })
})
