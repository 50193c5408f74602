import { type Lock, MutexExpiredError, MutexLostError, MutexUnlockError } from '@redismutex/core'
import { expect } from 'chai'
import { aborted, EXPIRING, type Ground, patiently, rejection, turns } from '../ground.js'

export function runningExclusively(ground: Ground): void {
  it('gives what the body gives', async () => {
    const mutex = ground.mutex()
    expect(await mutex.runExclusive(ground.key, () => 1)).to.equal(1)
    expect(await mutex.runExclusive(ground.key, async () => 'later')).to.equal('later')
    expect(await mutex.runExclusive(ground.key, () => {})).to.equal(undefined)
  })

  it('gives the body its lock, held', async () => {
    const mutex = ground.mutex()
    await mutex.runExclusive([ground.key], async (lock) => {
      expect(lock.key).to.equal(ground.key)
      expect(await mutex.tryAcquire(ground.key)).to.equal(null)
    })
  })

  it('gives the lock back when the body is done', async () => {
    const mutex = ground.mutex()
    await mutex.runExclusive(ground.key, () => turns())
    expect(mutex.stats().held).to.equal(0)
    await (await mutex.acquireLock(ground.key, { blocking: false })).release()
  })

  for (const [how, body] of [
    ['throws', (error: Error) => () => expect.fail(error.message)],
    ['rejects', (error: Error) => () => Promise.reject(error)],
  ] as const) {
    it(`gives the lock back when the body ${how}`, async () => {
      const mutex = ground.mutex()
      const error = await rejection(mutex.runExclusive(ground.key, body(new Error('of the body'))))
      expect(error).to.have.property('message', 'of the body')
      await (await mutex.acquireLock(ground.key, { blocking: false })).release()
    })
  }

  it('rejects with MutexUnlockError when the lock was lost meanwhile', async () => {
    const mutex = ground.mutex(EXPIRING)
    const error = await rejection(
      patiently(() => mutex.runExclusive(ground.key, (lock) => aborted(lock.signal))),
    )
    expect(error).to.be.instanceOf(MutexUnlockError)
    expect(error).to.have.property('cause').that.is.instanceOf(MutexExpiredError)
  })

  it('rejects with the error of the body even when the lock was lost too', async () => {
    const mutex = ground.mutex(EXPIRING)
    const failure = new Error('of the body')
    const body = async (lock: Lock) => {
      await aborted(lock.signal)
      throw failure
    }
    const error = await rejection(patiently(() => mutex.runExclusive(ground.key, body)))
    expect(error).to.equal(failure)
  })

  it('lets the body release the lock itself', async () => {
    const mutex = ground.mutex()
    const result = await mutex.runExclusive(ground.key, async (lock) => {
      await lock.release()
      return 'done'
    })
    expect(result).to.equal('done')
    const error = await rejection(
      mutex.runExclusive(ground.key, async (lock) => {
        await lock.release()
        throw new Error('after it')
      }),
    )
    expect(error).to.have.property('message', 'after it')
  })

  it('does not run the body without the lock', async () => {
    const mutex = ground.mutex()
    const holder = await mutex.acquireLock(ground.key)
    let ran = false
    await rejection(mutex.runExclusive(ground.key, () => (ran = true), { blocking: false }))
    expect(ran).to.equal(false)
    await holder.release()
  })

  it('refuses a body that is no function, without locking anything', async () => {
    const mutex = ground.mutex()
    const error = await rejection(mutex.runExclusive(ground.key, 'body' as never))
    expect(error).to.be.instanceOf(TypeError)
    expect(mutex.stats()).to.include({ held: 0, acquired: 0 })
  })

  if (ground.outside.steal) {
    it('rejects with MutexUnlockError when somebody took the lock away', async () => {
      const mutex = ground.mutex({ expiry: Number.POSITIVE_INFINITY, lease: 300 })
      const unnoticed = await rejection(mutex.runExclusive(ground.key, () => ground.steal()))
      expect(unnoticed).to.be.instanceOf(MutexUnlockError)
      const noticed = await rejection(
        mutex.runExclusive(ground.key, async (lock) => {
          const { signal } = lock
          await ground.steal()
          expect(await aborted(signal)).to.be.instanceOf(MutexLostError)
        }),
      )
      expect(noticed).to.be.instanceOf(MutexUnlockError)
      expect(noticed).to.have.property('cause').that.is.instanceOf(MutexLostError)
    })
  }
}
