import { setImmediate } from 'node:timers/promises'
import { expect } from 'chai'
import { type Ground, Room, range } from '../ground.js'

export function fairness(ground: Ground): void {
  it('lets one in at a time', async () => {
    const mutex = ground.mutex()
    const room = new Room()
    await Promise.all(range(20).map(() => mutex.runExclusive(ground.key, room.visit)))
    expect(room).to.include({ entered: 20, most: 1 })
  })

  it('lets one in at a time through several mutexes', async () => {
    const mutexes = [ground.mutex(), ground.mutex(), ground.mutex()]
    const room = new Room()
    await Promise.all(
      mutexes.flatMap((mutex) => range(10).map(() => mutex.runExclusive(ground.key, room.visit))),
    )
    expect(room).to.include({ entered: 30, most: 1 })
  })

  it('lets those of different keys in side by side', async () => {
    const mutex = ground.mutex()
    const first = await mutex.acquireLock(`${ground.key}:1`)
    const second = await mutex.acquireLock(`${ground.key}:2`)
    await first.release()
    await second.release()
  })

  it('serves those who wait in the order in which they came', async () => {
    const mutexes = [ground.mutex(), ground.mutex()] as const
    const holder = await mutexes[0].acquireLock(ground.key)
    const order: number[] = []
    const all = range(12).map(async (n) => {
      const lock = await mutexes[n % 2 ? 0 : 1].acquireLock(ground.key)
      order.push(n)
      await lock.release()
    })
    await holder.release()
    await Promise.all(all)
    expect(order).to.deep.equal(range(12))
  })

  it('lets nobody overtake a waiter at the moment of the release', async () => {
    const mutex = ground.mutex()
    const holder = await mutex.acquireLock(ground.key)
    const order: string[] = []
    const waiter = mutex.runExclusive(ground.key, () => order.push('waiter'))
    const released = holder.release()
    const late = mutex.runExclusive(ground.key, () => order.push('late'))
    expect(await mutex.tryAcquire(ground.key)).to.equal(null)
    await Promise.all([released, waiter, late])
    expect(order).to.deep.equal(['waiter', 'late'])
  })

  it('leaves the event loop to others while 64 waiters do nothing but take turns', async () => {
    const mutex = ground.mutex()
    const most = 2000
    let turns = 0
    let stop = false
    const all = range(64).map(async () => {
      for (let turn = 0; turn < most && !stop; turn++) {
        await mutex.runExclusive(ground.key, () => {})
        turns++
      }
    })
    // Without a pause, all of them would be through before this timer fires.
    setTimeout(() => {
      stop = true
    }, 1)
    await Promise.all(all)
    expect(turns).to.be.below(64 * most)
  })

  it('does not let a mutex that is busy with one key hold up another key', async () => {
    const mutex = ground.mutex()
    let stop = false
    const busy = range(8).map(async () => {
      while (!stop) {
        await mutex.runExclusive(`${ground.key}:busy`, () => {})
        await setImmediate()
      }
    })
    const lock = await mutex.acquireLock(ground.key)
    stop = true
    await Promise.all(busy)
    await lock.release()
  })
}
