import { MutexLockError, MutexQueueFullError } from '@redismutex/core'
import { expect } from 'chai'
import { type Ground, rejection } from '../ground.js'

export function refusing(ground: Ground): void {
  it('is not what a try meets that finds the key free', async () => {
    const lock = await ground.mutex().tryAcquire(ground.key)
    expect(lock).to.have.property('key', ground.key)
    await lock?.release()
  })

  it('gives null to a try that finds the key held', async () => {
    const mutex = ground.mutex()
    const holder = await mutex.acquireLock(ground.key)
    expect(await mutex.tryAcquire(ground.key)).to.equal(null)
    expect(await ground.mutex().tryAcquire(ground.key)).to.equal(null)
    await holder.release()
  })

  it('gives null to a try that finds somebody waiting', async () => {
    const mutex = ground.mutex()
    const holder = await mutex.acquireLock(ground.key)
    const waiter = mutex.acquireLock(ground.key)
    const released = holder.release()
    expect(await mutex.tryAcquire(ground.key)).to.equal(null)
    await released
    await (await waiter).release()
  })

  it('gives null to all but one of those who try at once', async () => {
    const mutex = ground.mutex()
    const locks = await Promise.all([1, 2, 3].map(() => mutex.tryAcquire(ground.key)))
    const [lock, ...others] = locks.filter((lock) => lock !== null)
    expect(others).to.deep.equal([])
    await lock?.release()
  })

  it('lets those who wait behind a try have their turn', async () => {
    const mutex = ground.mutex()
    const tried = mutex.tryAcquire(ground.key)
    const waiter = mutex.acquireLock(ground.key)
    await (await tried)?.release()
    await (await waiter).release()
  })

  it('fails with MutexLockError at once when the mutex is not blocking', async () => {
    const mutex = ground.mutex({ blocking: false })
    const lock = await mutex.acquireLock(ground.key)
    const error = await rejection(mutex.acquireLock(ground.key))
    expect(error).to.be.instanceOf(MutexLockError).with.property('key', ground.key)
    expect(await mutex.tryAcquire(ground.key)).to.equal(null)
    await lock.release()
    await (await mutex.acquireLock(ground.key)).release()
  })

  it('fails with MutexQueueFullError at once when maxWaiting wait already', async () => {
    const mutex = ground.mutex({ maxWaiting: 2 })
    const holder = await mutex.acquireLock(ground.key)
    const waiters = [mutex.acquireLock(ground.key), mutex.acquireLock(ground.key)]
    const error = await rejection(mutex.acquireLock(ground.key))
    expect(error).to.be.instanceOf(MutexQueueFullError).with.property('key', ground.key)
    expect(mutex.stats()).to.include({ waiting: 2, refused: 1 })
    await holder.release()
    for (const waiter of waiters) await (await waiter).release()
  })

  it('has room again when one who waited has left', async () => {
    const mutex = ground.mutex({ maxWaiting: 1 })
    const holder = await mutex.acquireLock(ground.key)
    const controller = new AbortController()
    const left = rejection(mutex.acquireLock(ground.key, { signal: controller.signal }))
    controller.abort()
    await left
    const waiter = mutex.acquireLock(ground.key)
    await holder.release()
    await (await waiter).release()
  })

  it('counts those who wait for one key only', async () => {
    const mutex = ground.mutex({ maxWaiting: 1 })
    const keys = [`${ground.key}:1`, `${ground.key}:2`]
    const holders = await Promise.all(keys.map((key) => mutex.acquireLock(key)))
    const waiters = keys.map((key) => mutex.acquireLock(key))
    await Promise.all(holders.map((holder) => holder.release()))
    for (const waiter of waiters) await (await waiter).release()
  })
}
