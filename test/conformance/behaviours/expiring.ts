import { setTimeout as sleep } from 'node:timers/promises'
import { type Lock, MutexExpiredError, MutexUnlockError } from '@redismutex/core'
import { expect } from 'chai'
import { aborted, EXPIRING, type Ground, patiently, rejection, stall } from '../ground.js'

export function expiring(ground: Ground): void {
  const acquire = (mutex = ground.mutex(EXPIRING)): Promise<Lock> =>
    patiently(() => mutex.acquireLock(ground.key))

  it('aborts the signal of the holder with MutexExpiredError, and not sooner', async () => {
    const lock = await acquire()
    const since = performance.now()
    const reason = await aborted(lock.signal)
    expect(reason).to.be.instanceOf(MutexExpiredError).with.property('key', ground.key)
    // Timed from when it was asked for, at the earliest, and less what clocks may differ.
    expect(lock.waited + performance.now() - since).to.be.at.least(90)
    await rejection(lock.release())
  })

  it('is told to a holder who looks at the signal only later', async () => {
    const mutex = ground.mutex(EXPIRING)
    const lock = await acquire(mutex)
    await (await ground.mutex().acquireLock(ground.key)).release()
    expect(lock.signal.aborted).to.equal(true)
    expect(lock.signal.reason).to.be.instanceOf(MutexExpiredError)
    expect(mutex.stats()).to.include({ held: 0, lost: 1 })
  })

  it('gives the lock to the next one', async () => {
    const lock = await acquire()
    const { signal } = lock
    const next = await ground.mutex().acquireLock(ground.key)
    expect(signal.aborted).to.equal(true)
    await next.release()
  })

  it('makes a late release fail with MutexUnlockError, which says why', async () => {
    const lock = await acquire()
    await aborted(lock.signal)
    const error = await rejection(lock.release())
    expect(error).to.be.instanceOf(MutexUnlockError).with.property('key', ground.key)
    expect(error).to.have.property('cause').that.is.instanceOf(MutexExpiredError)
    expect(lock.key).to.equal(null)
  })

  it('lets nobody hear of a late release that nobody waits for', async () => {
    const lock = await acquire()
    await aborted(lock.signal)
    // A rejection that is not handled would fail the run.
    void lock.release()
    void lock.release()
    await ground.mutex().runExclusive(ground.key, () => {})
  })

  it('keeps a late release from touching the next holder', async () => {
    const mutex = ground.mutex()
    const lock = await acquire()
    const next = await mutex.acquireLock(ground.key)
    await rejection(lock.release())
    expect(await mutex.tryAcquire(ground.key)).to.equal(null)
    await next.release()
  })

  it('is noticed after a stall, before any timer could tell', async () => {
    const lock = await acquire()
    const { signal } = lock
    stall(120)
    expect(lock.signal.aborted).to.equal(true)
    expect(signal.reason).to.be.instanceOf(MutexExpiredError)
    await rejection(lock.release())
  })

  it('is noticed by a release after a stall', async () => {
    const lock = await acquire()
    stall(120)
    const error = await rejection(lock.release())
    expect(error).to.be.instanceOf(MutexUnlockError)
    expect(error).to.have.property('cause').that.is.instanceOf(MutexExpiredError)
  })

  it('runs anew for each holder of a line', async () => {
    const first = await ground.mutex().acquireLock(ground.key)
    await sleep(130)
    const mutex = ground.mutex({ blockTime: 190, expiry: 200 })
    const waiter = acquire(mutex)
    await first.release()
    const second = await waiter
    const since = performance.now()
    expect(await aborted(second.signal)).to.be.instanceOf(MutexExpiredError)
    expect(performance.now() - since).to.be.at.least(150)
  })

  it('does not happen when expiry is Infinity, however short the lease', async () => {
    const mutex = ground.mutex({ expiry: Number.POSITIVE_INFINITY, lease: 400 })
    const lock = await mutex.acquireLock(ground.key)
    await sleep(500)
    expect(lock.signal.aborted).to.equal(false)
    expect(await mutex.tryAcquire(ground.key)).to.equal(null)
    await lock.release()
  })
}
