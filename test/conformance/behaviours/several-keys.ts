import {
  BlockTimeExceedError,
  MutexExpiredError,
  MutexLockError,
  MutexLostError,
  MutexUnlockError,
} from '@redismutex/core'
import { expect } from 'chai'
import { aborted, type Ground, patiently, Room, range, rejection, until } from '../ground.js'

export function severalKeys(ground: Ground): void {
  const keys = () => ['b', 'a', 'c'].map((name) => `${ground.key}:${name}`)

  it('are held together, and told in the order in which they were given', async () => {
    const mutex = ground.mutex()
    const [b, a, c] = keys() as [string, string, string]
    const lock = await mutex.acquireLock([b, a, b, c, a])
    expect(lock.key).to.equal(b)
    expect(lock.keys).to.deep.equal([b, a, c])
    for (const key of [a, b, c]) expect(await mutex.tryAcquire(key)).to.equal(null)
    await lock.release()
    for (const key of [a, b, c]) await (await mutex.tryAcquire(key))?.release()
    expect(mutex.stats()).to.include({ held: 0, acquired: 6 })
  })

  it('have a fencing token each', async () => {
    const lock = await ground.mutex().acquireLock(keys())
    expect([...lock.fencingTokens.keys()]).to.deep.equal(keys())
    expect(lock.fencingToken).to.equal([...lock.fencingTokens.values()][0])
    await lock.release()
  })

  it('do not deadlock two who ask in opposite orders', async () => {
    const mutexes = [ground.mutex(), ground.mutex()]
    const room = new Room()
    await Promise.all(
      mutexes.flatMap((mutex, which) =>
        range(10).map(() => {
          const order = which ? keys() : keys().reverse()
          return mutex.runExclusive(order, room.visit)
        }),
      ),
    )
    expect(room).to.include({ entered: 20, most: 1 })
  })

  it('exclude those who want one of them', async () => {
    const mutex = ground.mutex()
    const room = new Room()
    await Promise.all(
      keys().flatMap((key) => [
        mutex.runExclusive(keys(), room.visit),
        mutex.runExclusive([key, keys()[0] as string], room.visit),
      ]),
    )
    expect(room).to.include({ entered: 6, most: 1 })
  })

  for (const held of [0, 1, 2]) {
    it(`are all given back when the ${['first', 'second', 'third'][held]} does not come`, async () => {
      const mutex = ground.mutex()
      const sorted = keys().sort()
      const holder = await ground.mutex().acquireLock(sorted[held] as string)
      const controller = new AbortController()
      const waiter = rejection(mutex.acquireLock(keys(), { signal: controller.signal }))
      await until(() => mutex.stats().held === held && mutex.stats().waiting === 1)
      controller.abort()
      expect(await waiter).to.equal(controller.signal.reason)
      const others = sorted.filter((_, which) => which !== held)
      for (const key of others) await (await mutex.acquireLock(key)).release()
      await holder.release()
      expect(mutex.stats()).to.include({ held: 0, waiting: 0 })
    })
  }

  it('are all or nothing for a try', async () => {
    const mutex = ground.mutex()
    const holder = await mutex.acquireLock(keys()[2] as string)
    expect(await mutex.tryAcquire(keys())).to.equal(null)
    const error = await rejection(mutex.acquireLock(keys(), { blocking: false }))
    expect(error).to.be.instanceOf(MutexLockError)
    await holder.release()
    const lock = await mutex.tryAcquire(keys())
    expect(lock?.keys).to.deep.equal(keys())
    await lock?.release()
  })

  it('have one blockTime for all', async () => {
    const mutex = ground.mutex({ blockTime: 300 })
    const [b, a] = keys() as [string, string]
    const first = await mutex.acquireLock(a)
    const second = await ground.mutex().acquireLock(b)
    const order: string[] = []
    const both = rejection(mutex.acquireLock([b, a])).then((error) => {
      order.push('both')
      return error
    })
    // Gets the first key after 220 of the 300 ms; a blockTime for each key would last beyond 500.
    setTimeout(() => void first.release(), 220)
    const control = ground.mutex({ blockTime: 420 })
    const waiter = rejection(control.acquireLock(b)).then(() => order.push('control'))
    expect(await both).to.be.instanceOf(BlockTimeExceedError)
    await waiter
    expect(order).to.deep.equal(['both', 'control'])
    await second.release()
  })

  it('have one expiry for all, from when the last came', async () => {
    const [b, a] = keys() as [string, string]
    const holder = await ground.mutex().acquireLock(b)
    const mutex = ground.mutex({ blockTime: 290, expiry: 300 })
    const waiter = patiently(() => mutex.acquireLock([a, b]))
    setTimeout(() => void holder.release(), 150)
    const lock = await waiter
    const since = performance.now()
    expect(await aborted(lock.signal)).to.be.instanceOf(MutexExpiredError)
    // From the first it would be 150 ms less; a lease is over a little before its time.
    expect(performance.now() - since).to.be.at.least(280)
    expect(await rejection(lock.release())).to.be.instanceOf(MutexUnlockError)
  })

  if (ground.outside.steal) {
    it('are lost together: the loss of one aborts the signal of all', async () => {
      const mutex = ground.mutex({ expiry: Number.POSITIVE_INFINITY, lease: 300 })
      const lock = await mutex.acquireLock(keys())
      const { signal } = lock
      await ground.steal(keys()[1] as string)
      expect(await aborted(signal)).to.be.instanceOf(MutexLostError)
      const error = await rejection(lock.release())
      expect(error).to.be.instanceOf(MutexUnlockError)
      expect(error).to.have.property('cause').that.is.instanceOf(MutexLostError)
      const next = await mutex.acquireLock(keys())
      await next.release()
    })
  }
}
