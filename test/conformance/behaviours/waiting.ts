import { getEventListeners } from 'node:events'
import { BlockTimeExceedError } from '@redismutex/core'
import { expect } from 'chai'
import { type Ground, range, rejection, stall, turns } from '../ground.js'

/** Timers may fire a little before a clock of another resolution says so. */
const EARLY = 2

export function waiting(ground: Ground): void {
  it('ends with the release of the holder', async () => {
    const mutex = ground.mutex()
    const holder = await mutex.acquireLock(ground.key)
    let has = false
    const waiter = mutex.acquireLock(ground.key).then((lock) => {
      has = true
      return lock
    })
    await turns()
    expect(has).to.equal(false)
    await holder.release()
    const lock = await waiter
    expect(lock.key).to.equal(ground.key)
    expect(lock.waited).to.be.above(0)
    await lock.release()
  })

  it('ends with BlockTimeExceedError after blockTime, and not sooner', async () => {
    const mutex = ground.mutex({ blockTime: 60 })
    const holder = await ground.mutex().acquireLock(ground.key)
    const began = performance.now()
    const error = await rejection(mutex.acquireLock(ground.key))
    expect(performance.now() - began).to.be.at.least(60 - EARLY)
    expect(error).to.be.instanceOf(BlockTimeExceedError).with.property('key', ground.key)
    await holder.release()
  })

  it('ends with BlockTimeExceedError for all whose blockTime is over at once', async () => {
    const mutex = ground.mutex({ blockTime: 60 })
    const holder = await ground.mutex().acquireLock(ground.key)
    for (const error of await Promise.all(
      range(5).map(() => rejection(mutex.acquireLock(ground.key))),
    )) {
      expect(error).to.be.instanceOf(BlockTimeExceedError)
    }
    await holder.release()
  })

  it('ends for each at its own time, in whatever order they came', async () => {
    const holder = await ground.mutex().acquireLock(ground.key)
    const mutex = ground.mutex()
    const left: number[] = []
    const wait = async (blockTime: number) => {
      const began = performance.now()
      const error = await rejection(mutex.acquireLock(ground.key, { blockTime }))
      expect(error).to.be.instanceOf(BlockTimeExceedError)
      expect(performance.now() - began).to.be.at.least(blockTime - EARLY)
      left.push(blockTime)
    }
    await Promise.all([400, 50, 225].map(wait))
    expect(left).to.deep.equal([50, 225, 400])
    await holder.release()
  })

  if (ground.traits.prompt) {
    it('ends with the lock when it came while the event loop was stalled', async () => {
      const mutex = ground.mutex({ blockTime: 50 })
      // What the store needs to know has been sent before, and its connection is there.
      await mutex.with({ blockTime: 5000 }).runExclusive(ground.key, () => {})
      const acquiring = mutex.acquireLock(ground.key)
      for (let turn = 0; turn < 10; turn++) await null
      stall(150)
      await (await acquiring).release()
    })
  }

  it('of one who gives up does not hold up those behind', async () => {
    const mutex = ground.mutex()
    const holder = await mutex.acquireLock(ground.key)
    const impatient = rejection(mutex.acquireLock(ground.key, { blockTime: 30 }))
    const patient = mutex.acquireLock(ground.key)
    const controller = new AbortController()
    const other = rejection(mutex.acquireLock(ground.key, { signal: controller.signal }))
    const last = mutex.acquireLock(ground.key)
    controller.abort()
    await Promise.all([impatient, other])
    expect(mutex.stats().waiting).to.equal(2)
    await holder.release()
    await (await patient).release()
    await (await last).release()
  })

  it('goes on when blockTime is Infinity', async () => {
    const mutex = ground.mutex({ blockTime: Number.POSITIVE_INFINITY })
    const holder = await mutex.acquireLock(ground.key)
    const waiter = mutex.acquireLock(ground.key)
    await turns()
    await holder.release()
    await (await waiter).release()
  })

  it('does not begin when the signal has aborted before', async () => {
    const mutex = ground.mutex()
    const reason = new Error('before')
    const signal = AbortSignal.abort(reason)
    expect(await rejection(mutex.acquireLock(ground.key, { signal }))).to.equal(reason)
    const lock = await mutex.tryAcquire(ground.key)
    expect(lock).not.to.equal(null)
    await lock?.release()
  })

  it('ends with the reason of the signal that aborts', async () => {
    const mutex = ground.mutex()
    const holder = await mutex.acquireLock(ground.key)
    for (const reason of [new Error('an error'), 'a string', 0]) {
      const controller = new AbortController()
      const waiter = rejection(mutex.acquireLock(ground.key, { signal: controller.signal }))
      await turns()
      controller.abort(reason)
      expect(await waiter).to.equal(reason)
    }
    expect(mutex.stats().waiting).to.equal(0)
    await holder.release()
  })

  it('can be aborted while the store is being asked', async () => {
    const mutex = ground.mutex()
    const controller = new AbortController()
    const asking = Promise.allSettled([
      mutex.acquireLock(ground.key, { signal: controller.signal }),
    ])
    controller.abort()
    // Where nobody has to be asked, it was granted already.
    const [result] = await asking
    if (result.status === 'fulfilled') await result.value.release()
    else expect(result.reason).to.equal(controller.signal.reason)
    await mutex.runExclusive(ground.key, () => {})
  })

  it('is over once the lock is held: an abort does not touch it any more', async () => {
    const mutex = ground.mutex()
    const controller = new AbortController()
    const lock = await mutex.acquireLock(ground.key, { signal: controller.signal })
    controller.abort()
    await turns()
    expect(lock.signal.aborted).to.equal(false)
    expect(await mutex.tryAcquire(ground.key)).to.equal(null)
    await lock.release()
  })

  it('may be ended for many by one signal', async () => {
    const mutex = ground.mutex()
    const holder = await mutex.acquireLock(ground.key)
    const controller = new AbortController()
    const { signal } = controller
    // Beyond ten listeners Node.js would warn of a leak, and fail the run.
    const waiters = range(50).map(() => rejection(mutex.acquireLock(ground.key, { signal })))
    controller.abort()
    for (const error of await Promise.all(waiters)) expect(error).to.equal(signal.reason)
    await holder.release()
  })

  it('ends with a signal that has the holder release as well, and is told of it first', async () => {
    const mutex = ground.mutex()
    const holder = await mutex.acquireLock(ground.key)
    const controller = new AbortController()
    const { signal } = controller
    const releasing = new Promise<void>((resolve) => {
      signal.addEventListener('abort', () => resolve(holder.release()))
    })
    const waiters = range(3).map(() => rejection(mutex.acquireLock(ground.key, { signal })))
    const patient = mutex.acquireLock(ground.key)
    controller.abort()
    for (const error of await Promise.all(waiters)) expect(error).to.equal(signal.reason)
    await releasing
    await (await patient).release()
  })

  it('leaves no listener behind on the signal', async () => {
    const mutex = ground.mutex()
    const { signal } = new AbortController()
    const holder = await mutex.acquireLock(ground.key, { signal })
    const refused = mutex.with({ blockTime: 20 }).acquireLock(ground.key, { signal })
    await rejection(refused)
    const waiter = mutex.acquireLock(ground.key, { signal })
    await holder.release()
    await (await waiter).release()
    expect(getEventListeners(signal, 'abort')).to.deep.equal([])
  })
}
