import { MutexUnlockError } from '@redismutex/core'
import { expect } from 'chai'
import { aborted, EXPIRING, type Ground, patiently, rejection } from '../ground.js'

/** Resolves when Node.js is told of a lock that could not be released. */
function warning(): Promise<void> {
  return new Promise((resolve) => {
    process.on('warning', function listener(warning) {
      if (!(warning instanceof MutexUnlockError)) return
      process.off('warning', listener)
      resolve()
    })
  })
}

export function holding(ground: Ground): void {
  it('gives a lock that tells its key and its value', async () => {
    const lock = await ground.mutex().acquireLock(ground.key)
    expect(lock.key).to.equal(ground.key)
    expect(lock.keys).to.deep.equal([ground.key])
    expect(lock.value).to.be.a('string').that.is.not.empty
    expect(lock.waited).to.be.a('number').that.is.at.least(0)
    expect(lock.signal.aborted).to.equal(false)
    await lock.release()
  })

  it('forgets key, value and token with the release', async () => {
    const lock = await ground.mutex().acquireLock(ground.key)
    await lock.release()
    expect(lock.key).to.equal(null)
    expect(lock.value).to.equal(null)
    expect(lock.fencingToken).to.equal(null)
    expect(lock.keys).to.deep.equal([])
    expect(lock.fencingTokens.size).to.equal(0)
  })

  it('forgets them as soon as the release is asked for', async () => {
    const lock = await ground.mutex().acquireLock(ground.key)
    const released = lock.release()
    expect(lock.key).to.equal(null)
    await released
  })

  it('can be acquired again after a release', async () => {
    const mutex = ground.mutex()
    await (await mutex.acquireLock(ground.key)).release()
    const lock = await mutex.acquireLock(ground.key)
    expect(lock.key).to.equal(ground.key)
    await lock.release()
  })

  it('refuses a second release', async () => {
    const lock = await ground.mutex().acquireLock(ground.key)
    await lock.release()
    expect(await rejection(lock.release())).to.be.instanceOf(MutexUnlockError)
  })

  it('refuses a second release that does not await the first', async () => {
    const lock = await ground.mutex().acquireLock(ground.key)
    const [first, second] = await Promise.allSettled([lock.release(), lock.release()])
    expect(first.status).to.equal('fulfilled')
    expect(second).to.have.property('reason').that.is.instanceOf(MutexUnlockError)
  })

  it('does not touch the next holder with a second release', async () => {
    const mutex = ground.mutex()
    const lock = await mutex.acquireLock(ground.key)
    await lock.release()
    const next = await mutex.acquireLock(ground.key)
    await rejection(lock.release())
    expect(await mutex.tryAcquire(ground.key)).to.equal(null)
    await next.release()
  })

  it('does not abort the signal with a release', async () => {
    const lock = await ground.mutex().acquireLock(ground.key)
    const { signal } = lock
    await lock.release()
    expect(signal.aborted).to.equal(false)
    expect(lock.signal.aborted).to.equal(false)
  })

  it('is given back at the end of an await using block', async () => {
    const mutex = ground.mutex()
    {
      await using lock = await mutex.acquireLock(ground.key)
      expect(lock.key).to.equal(ground.key)
    }
    const next = await mutex.tryAcquire(ground.key)
    expect(next).not.to.equal(null)
    await next?.release()
  })

  it('may be released inside an await using block', async () => {
    await using lock = await ground.mutex().acquireLock(ground.key)
    await lock.release()
  })

  it('leaves an await using block quietly when it was lost, but for a warning', async () => {
    const mutex = ground.mutex(EXPIRING)
    const warned = warning()
    {
      await using lock = await patiently(() => mutex.acquireLock(ground.key))
      await aborted(lock.signal)
    }
    await warned
  })

  it('lets the error of an await using block pass when the lock was lost too', async () => {
    const mutex = ground.mutex(EXPIRING)
    const failure = new Error('of the block')
    const warned = warning()
    const block = async () => {
      await using lock = await patiently(() => mutex.acquireLock(ground.key))
      await aborted(lock.signal)
      throw failure
    }
    expect(await rejection(block())).to.equal(failure)
    await warned
  })
}
