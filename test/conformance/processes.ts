import { setTimeout as sleep } from 'node:timers/promises'
import { BlockTimeExceedError, type Lock, type Mutex, MutexExpiredError } from '@redismutex/core'
import { expect } from 'chai'
import { freshKey } from '../support/redis.js'
import {
  aborted,
  EXPIRING,
  Ground,
  type MakeStore,
  type Outside,
  patiently,
  Room,
  range,
  rejection,
  type Traits,
} from './ground.js'

/** What mutexes in several processes do, by way of a store that is shared between them. */
export function processConformance(
  name: string,
  makeStore: MakeStore,
  outside: Outside = {},
  traits: Traits = {},
): void {
  describe(`mutexes of several processes on ${name}`, () => {
    const ground = new Ground(makeStore, outside, traits)
    beforeEach(() => ground.begin())

    sharing(ground)
    if (ground.traits.fencing) fencingTogether(ground)
    if (ground.traits.ordered) queueing(ground)
  })
}

function sharing(ground: Ground): void {
  let here: Mutex
  let there: Mutex

  beforeEach(() => {
    here = ground.mutex()
    there = ground.elsewhere()
  })

  it('exclude each other', async () => {
    const room = new Room()
    await Promise.all(
      [here, there, ground.elsewhere()].flatMap((mutex) =>
        range(10).map(() => mutex.runExclusive(ground.key, room.visit)),
      ),
    )
    expect(room).to.include({ entered: 30, most: 1 })
  })

  it('end a wait after blockTime for all who wait in one process', async () => {
    const holder = await here.acquireLock(ground.key)
    const mutex = ground.elsewhere({ blockTime: 300 })
    // Connected by then: else it could be the store that takes so long.
    await patiently(() => mutex.runExclusive(freshKey(), () => {}))
    const errors = await Promise.all(range(5).map(() => rejection(mutex.acquireLock(ground.key))))
    for (const error of errors) expect(error).to.be.instanceOf(BlockTimeExceedError)
    await holder.release()
  })

  it('hand over what one loses by its expiry', async () => {
    const mutex = ground.elsewhere(EXPIRING)
    const lock = await patiently(() => mutex.acquireLock(ground.key))
    const { signal } = lock
    const next = await there.acquireLock(ground.key)
    expect(await aborted(signal)).to.be.instanceOf(MutexExpiredError)
    expect(await here.tryAcquire(ground.key)).to.equal(null)
    await rejection(lock.release())
    expect(await here.tryAcquire(ground.key)).to.equal(null)
    await next.release()
  })

  it('do not deadlock over several keys', async () => {
    const keys = ['a', 'b', 'c'].map((name) => `${ground.key}:${name}`)
    const room = new Room()
    await Promise.all(
      [here, there].flatMap((mutex, which) =>
        range(8).map(() => mutex.runExclusive(which ? keys : keys.toReversed(), room.visit)),
      ),
    )
    expect(room).to.include({ entered: 16, most: 1 })
  })

  it('leave nothing behind but what expires and blocks nobody', async () => {
    const mutexes = [here, there, ground.elsewhere()]
    const keys = range(3).map((n) => `${ground.key}:${n}`)
    await Promise.all(
      mutexes.flatMap((mutex) =>
        range(12).map((n) =>
          mutex
            .runExclusive(n % 4 ? (keys[n % 3] as string) : keys, () => {}, {
              signal: n % 5 ? undefined : AbortSignal.timeout(n),
            })
            .catch(() => {}),
        ),
      ),
    )
    await Promise.all(mutexes.map((mutex) => mutex.close()))
    expect(await ground.leftovers()).to.deep.equal([])
  })
}

function fencingTogether(ground: Ground): void {
  it('draw on one sequence of fencing tokens', async () => {
    const [here, there] = [ground.mutex(), ground.elsewhere()]
    let last = 0n
    const note = (lock: Lock) => {
      const token = BigInt(lock.fencingToken as string)
      expect(token > last, `${token} > ${last}`).to.equal(true)
      last = token
    }
    for (const mutex of [here, there, here, there]) await mutex.runExclusive(ground.key, note)
    await Promise.all(
      [here, there].flatMap((mutex) => range(200).map(() => mutex.runExclusive(ground.key, note))),
    )
  })
}

function queueing(ground: Ground): void {
  // A lost message would show: the next poll comes too late for these tests.
  const patient = { blockTime: 15_000, delay: 12_000, expiry: 16_000 }
  let here: Mutex
  let there: Mutex

  beforeEach(() => {
    here = ground.mutex(patient)
    there = ground.elsewhere(patient)
  })

  it('refuse a try while another process holds or waits', async () => {
    const lock = await here.acquireLock(ground.key)
    expect(await there.tryAcquire(ground.key)).to.equal(null)
    const waiter = ground.elsewhere(patient).acquireLock(ground.key)
    await ground.queued(1)
    await lock.release()
    expect(await there.tryAcquire(ground.key)).to.equal(null)
    await (await waiter).release()
    const free = await there.tryAcquire(ground.key)
    expect(free).not.to.equal(null)
    await free?.release()
  })

  it('hand over at once, without waiting for a poll', async () => {
    const lock = await here.acquireLock(ground.key)
    const waiter = there.acquireLock(ground.key)
    await ground.queued(1)
    await lock.release()
    const next = await waiter
    expect(next.waited).to.be.below(6000)
    await next.release()
  })

  it('hand over at once again and again, each way', async () => {
    const began = performance.now()
    let lock = await here.acquireLock(ground.key)
    for (const mutex of [there, here, there, here]) {
      const waiter = mutex.acquireLock(ground.key)
      await ground.queued(1)
      await lock.release()
      lock = await waiter
    }
    await lock.release()
    expect(performance.now() - began).to.be.below(6000)
  })

  it('serve the oldest waiter of them all first', async () => {
    const holder = await ground.elsewhere(patient).acquireLock(ground.key)
    const order: string[] = []
    // Longer than the slice for which a process may go on by itself.
    const take = async (mutex: Mutex, who: string) => {
      const lock = await mutex.acquireLock(ground.key)
      order.push(who)
      await sleep(6)
      await lock.release()
    }
    const all = [take(here, 'here first')]
    await ground.queued(1)
    all.push(take(there, 'there first'))
    await ground.queued(2)
    all.push(take(here, 'here second'), take(there, 'there second'))
    await holder.release()
    await Promise.all(all)
    expect(order.slice(0, 2)).to.deep.equal(['here first', 'there first'])
    expect(order.slice(2).sort()).to.deep.equal(['here second', 'there second'])
  })

  it('keep the place of a process that has to queue again', async () => {
    const holder = await ground.elsewhere(patient).acquireLock(ground.key)
    const order: string[] = []
    const take = async (mutex: Mutex, who: string) => {
      const lock = await mutex.acquireLock(ground.key)
      order.push(who)
      await sleep(6)
      await lock.release()
    }
    // Both of this process are older than the other's; the second is not in the queue yet.
    const all = [take(here, '1'), take(here, '2')]
    await ground.queued(1)
    // Ages are measured here and told there: leave more between them than that can blur.
    await sleep(50)
    all.push(take(there, '3'))
    await ground.queued(2)
    await holder.release()
    await Promise.all(all)
    expect(order).to.deep.equal(['1', '2', '3'])
  })

  it('pass over one who has given up', async () => {
    const holder = await here.acquireLock(ground.key)
    const controller = new AbortController()
    const left = rejection(there.acquireLock(ground.key, { signal: controller.signal }))
    await ground.queued(1)
    const third = ground.elsewhere(patient).acquireLock(ground.key)
    await ground.queued(2)
    controller.abort()
    expect(await left).to.equal(controller.signal.reason)
    await holder.release()
    const lock = await third
    expect(lock.waited).to.be.below(6000)
    await lock.release()
  })

  it('take a place in the queue back when its waiter gives up', async () => {
    const holder = await here.acquireLock(ground.key)
    const controller = new AbortController()
    const left = rejection(there.acquireLock(ground.key, { signal: controller.signal }))
    await ground.queued(1)
    controller.abort()
    await left
    await ground.queued(0)
    await holder.release()
  })

  it('hand over what one gives back by closing', async () => {
    await here.acquireLock(ground.key)
    const waiter = there.acquireLock(ground.key)
    await ground.queued(1)
    await here.close()
    const lock = await waiter
    expect(lock.waited).to.be.below(6000)
    await lock.release()
  })
}
