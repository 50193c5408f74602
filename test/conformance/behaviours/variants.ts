import {
  BlockTimeExceedError,
  Mutex,
  MutexClosedError,
  MutexExpiredError,
  MutexLockError,
} from '@redismutex/core'
import { expect } from 'chai'
import { aborted, EXPIRING, type Ground, patiently, rejection } from '../ground.js'

export function variants(ground: Ground): void {
  it('lets a call choose its blockTime', async () => {
    const mutex = ground.mutex({ blockTime: 60_000, delay: 10 })
    const holder = await mutex.acquireLock(ground.key)
    expect(await rejection(mutex.acquireLock(ground.key, { blockTime: 20 }))).to.be.instanceOf(
      BlockTimeExceedError,
    )
    await holder.release()
  })

  it('lets a call choose not to wait, or to wait', async () => {
    const mutex = ground.mutex()
    const holder = await mutex.acquireLock(ground.key)
    expect(await rejection(mutex.acquireLock(ground.key, { blocking: false }))).to.be.instanceOf(
      MutexLockError,
    )
    const waiter = mutex.with({ blocking: false }).acquireLock(ground.key, { blocking: true })
    await holder.release()
    await (await waiter).release()
  })

  it('takes what a call leaves undefined from the mutex', async () => {
    const mutex = ground.mutex({ blocking: false })
    const holder = await mutex.acquireLock(ground.key)
    const options = { blocking: undefined, blockTime: undefined, signal: undefined }
    expect(await rejection(mutex.acquireLock(ground.key, options))).to.be.instanceOf(MutexLockError)
    await holder.release()
  })

  it('gives options of a call to runExclusive too', async () => {
    const mutex = ground.mutex()
    const holder = await mutex.acquireLock(ground.key)
    const error = await rejection(mutex.runExclusive(ground.key, () => {}, { blocking: false }))
    expect(error).to.be.instanceOf(MutexLockError)
    await holder.release()
  })

  it('makes variants that change some options and keep the others', async () => {
    const mutex = ground.mutex({ ...EXPIRING, maxWaiting: 7 })
    const variant = mutex.with({ blocking: false })
    expect(variant).to.be.instanceOf(Mutex)
    expect(variant.options).to.include({ blocking: false, blockTime: 90, maxWaiting: 7 })
    expect(mutex.options).not.to.have.property('blocking')
    const lock = await patiently(() => variant.acquireLock(ground.key))
    expect(await rejection(variant.acquireLock(ground.key))).to.be.instanceOf(MutexLockError)
    expect(await aborted(lock.signal)).to.be.instanceOf(MutexExpiredError)
  })

  it('makes variants that exclude each other, count together and close together', async () => {
    const mutex = ground.mutex()
    const variant = mutex.with({ maxWaiting: 1 })
    const lock = await variant.acquireLock(ground.key)
    expect(await mutex.tryAcquire(ground.key)).to.equal(null)
    expect(mutex.stats()).to.deep.equal(variant.stats())
    await mutex.close()
    expect(await rejection(variant.acquireLock(ground.key))).to.be.instanceOf(MutexClosedError)
    expect(lock.signal.reason).to.be.instanceOf(MutexClosedError)
  })

  it('counts what it has going on and has done', async () => {
    const mutex = ground.mutex()
    const none = { held: 0, waiting: 0, acquired: 0, refused: 0, lost: 0, storeErrors: 0 }
    expect(mutex.stats()).to.deep.equal(none)
    const lock = await mutex.acquireLock(ground.key)
    const waiter = mutex.acquireLock(ground.key)
    expect(await mutex.tryAcquire(ground.key)).to.equal(null)
    const { held, waiting, acquired, refused } = mutex.stats()
    expect({ held, waiting, acquired, refused }).to.deep.equal({
      ...{ held: 1, waiting: 1, acquired: 1, refused: 1 },
    })
    await lock.release()
    await (await waiter).release()
    expect(mutex.stats()).to.deep.equal({ ...none, acquired: 2, refused: 1 })
  })

  it('counts what was lost', async () => {
    const mutex = ground.mutex(EXPIRING)
    const lock = await patiently(() => mutex.acquireLock(ground.key))
    await aborted(lock.signal)
    expect(mutex.stats()).to.include({ held: 0, acquired: 1, lost: 1 })
    await rejection(lock.release())
    expect(mutex.stats()).to.include({ held: 0, acquired: 1, lost: 1 })
  })
}
