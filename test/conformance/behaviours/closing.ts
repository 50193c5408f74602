import { MutexClosedError, MutexUnlockError } from '@redismutex/core'
import { expect } from 'chai'
import { type Ground, range, rejection, turns } from '../ground.js'

export function closing(ground: Ground): void {
  it('refuses new work with MutexClosedError', async () => {
    const mutex = ground.mutex()
    await mutex.close()
    for (const work of [
      mutex.acquireLock(ground.key),
      mutex.acquireLock([ground.key, `${ground.key}:2`]),
      mutex.tryAcquire(ground.key),
      mutex.runExclusive(ground.key, () => expect.fail('it ran')),
    ]) {
      expect(await rejection(work)).to.be.instanceOf(MutexClosedError)
    }
  })

  it('fails those who wait with MutexClosedError', async () => {
    const mutex = ground.mutex()
    const holder = await ground.mutex().acquireLock(ground.key)
    const waiters = range(5).map(() => rejection(mutex.acquireLock(ground.key)))
    await mutex.close()
    for (const error of await Promise.all(waiters)) {
      expect(error).to.be.instanceOf(MutexClosedError).with.property('key', ground.key)
    }
    expect(mutex.stats()).to.include({ waiting: 0, held: 0 })
    await holder.release()
  })

  it('fails those whom the store has not answered yet', async () => {
    const mutex = ground.mutex()
    const asking = mutex.acquireLock(ground.key)
    const result = Promise.allSettled([asking])
    await mutex.close()
    const [{ status }] = await result
    expect(status).to.be.oneOf(['fulfilled', 'rejected'])
    if (status === 'rejected') {
      expect(await rejection(asking)).to.be.instanceOf(MutexClosedError)
    }
    await ground.mutex().runExclusive(ground.key, () => {})
  })

  it('aborts the signals of what is held with MutexClosedError, and gives it back', async () => {
    const mutex = ground.mutex()
    const one = await mutex.acquireLock(ground.key)
    const two = await mutex.acquireLock([`${ground.key}:2`, `${ground.key}:3`])
    const { signal } = one
    await mutex.close()
    expect(signal.reason).to.be.instanceOf(MutexClosedError).with.property('key', ground.key)
    expect(two.signal.reason).to.be.instanceOf(MutexClosedError)
    const other = ground.mutex()
    for (const key of [ground.key, `${ground.key}:2`, `${ground.key}:3`]) {
      await (await other.acquireLock(key, { blocking: false })).release()
    }
    expect(mutex.stats()).to.include({ held: 0, lost: 3 })
  })

  it('makes a release after it fail with MutexUnlockError, which says why', async () => {
    const mutex = ground.mutex()
    const lock = await mutex.acquireLock(ground.key)
    await mutex.close()
    const error = await rejection(lock.release())
    expect(error).to.be.instanceOf(MutexUnlockError)
    expect(error).to.have.property('cause').that.is.instanceOf(MutexClosedError)
  })

  it('leaves other mutexes on the same store alone', async () => {
    const mutex = ground.mutex()
    const other = ground.mutex()
    const lock = await mutex.acquireLock(ground.key)
    const held = await other.acquireLock(`${ground.key}:held`)
    const order: string[] = []
    const waiters = [
      other.runExclusive(ground.key, () => order.push('first')),
      rejection(mutex.acquireLock(ground.key)),
      other.runExclusive(ground.key, () => order.push('second')),
    ]
    await mutex.close()
    await Promise.all(waiters)
    expect(order).to.deep.equal(['first', 'second'])
    expect(lock.signal.aborted).to.equal(true)
    expect(held.signal.aborted).to.equal(false)
    await held.release()
    await other.runExclusive(ground.key, () => {})
  })

  it('may happen twice, and at the end of an await using block', async () => {
    const mutex = ground.mutex()
    {
      await using inner = mutex
      await inner.acquireLock(ground.key)
    }
    await mutex.close()
    expect(await rejection(mutex.acquireLock(ground.key))).to.be.instanceOf(MutexClosedError)
  })

  it('by drain() fails those who wait, and leaves what is held to its holders', async () => {
    const mutex = ground.mutex()
    const lock = await mutex.acquireLock(ground.key)
    const waiter = rejection(mutex.acquireLock(ground.key))
    let drained = false
    const draining = mutex.drain().then(() => {
      drained = true
    })
    expect(await waiter).to.be.instanceOf(MutexClosedError)
    expect(await rejection(mutex.acquireLock(ground.key))).to.be.instanceOf(MutexClosedError)
    await turns(10)
    expect(drained).to.equal(false)
    expect(lock.signal.aborted).to.equal(false)
    await lock.release()
    await draining
  })

  it('by drain() is over at once when nothing is held', async () => {
    const mutex = ground.mutex()
    await mutex.runExclusive(ground.key, () => {})
    await mutex.drain()
  })

  it('of a mutex that waits for several keys gives back those it has', async () => {
    const mutex = ground.mutex()
    const keys = [`${ground.key}:1`, `${ground.key}:2`] as const
    const holder = await ground.mutex().acquireLock(keys[1])
    const waiter = rejection(mutex.acquireLock(keys))
    while (mutex.stats().held < 1) await new Promise(setImmediate)
    await mutex.close()
    expect(await waiter).to.be.instanceOf(MutexClosedError)
    await (await ground.mutex().acquireLock(keys[0])).release()
    await holder.release()
  })
}
