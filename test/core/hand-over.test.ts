import {
  Mutex,
  MutexClosedError,
  MutexUnlockError,
  memoryStore,
  type Store,
  type Tenure,
} from '@redismutex/core'
import { expect } from 'chai'
import { Bid } from '../../packages/core/src/stores/redis/bid.js'
import { namesOf } from '../../packages/core/src/stores/redis/names.js'
import { rejection, stall } from '../conformance/ground.js'

/** A turn of the event loop. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** A store in the process whose tenures are not quite what they are, and whose releases are counted. */
class Altered {
  releases = 0
  readonly store: Store

  constructor(alter: (tenure: Tenure) => Tenure, more: Partial<Store> = {}) {
    const memory = memoryStore()
    this.store = {
      ...memory,
      tenure: (asker, wish) => alter(memory.tenure(asker, wish)),
      release: (...args) => {
        this.releases++
        return memory.release(...args)
      },
      ...more,
    }
  }
}

describe('a hand-over inside the process, when no fencing token is left for it', () => {
  /** How many tokens may be used after the first. */
  let spare: number
  let altered: Altered
  let mutex: Mutex

  beforeEach(() => {
    spare = 0
    altered = new Altered((tenure) => {
      let first = Number.NaN
      tenure.lastToken = () => {
        if (Number.isNaN(first)) first = tenure.token ?? 0
        return first + spare
      }
      return tenure
    })
    mutex = new Mutex(altered.store)
  })

  it('waits until there is one, and takes the next', async () => {
    const first = await mutex.acquireLock('key')
    const { fencingToken } = first
    const second = mutex.acquireLock('key')
    let third = false
    const last = mutex.acquireLock('key').then((lock) => {
      third = true
      return lock
    })
    await first.release()
    for (let n = 0; n < 5; n++) await turn()
    expect(mutex.stats()).to.include({ held: 0, waiting: 2 })
    expect(await mutex.tryAcquire('key')).to.equal(null)
    spare = 1
    const lock = await second
    expect(Number(lock.fencingToken)).to.equal(Number(fencingToken) + 1)
    await lock.release()
    for (let n = 0; n < 5; n++) await turn()
    expect(third).to.equal(false)
    spare = 2
    await (await last).release()
    expect(altered.releases).to.equal(1)
  })

  it('gives the lock back if all leave meanwhile', async () => {
    const first = await mutex.acquireLock('key')
    const controller = new AbortController()
    const { signal } = controller
    const waiting = [1, 2].map(() => rejection(mutex.acquireLock('key', { signal })))
    await first.release()
    await turn()
    expect(altered.releases).to.equal(0)
    controller.abort(new Error('no more'))
    for (const error of await Promise.all(waiting)) expect(error).to.include({ message: 'no more' })
    expect(altered.releases).to.equal(1)
    await mutex.runExclusive('key', () => {})
  })

  it('gives the lock back if the mutex is closed meanwhile', async () => {
    const first = await mutex.acquireLock('key')
    const waiting = rejection(mutex.acquireLock('key'))
    await first.release()
    await mutex.close()
    expect(await waiting).to.be.instanceOf(MutexClosedError)
    expect(altered.releases).to.equal(1)
  })
})

describe('a hand-over inside the process, when the lease is about to end', () => {
  let deadline: () => number
  let renewals: (() => Promise<boolean>)[]
  let altered: Altered
  let mutex: Mutex
  const short = { blockTime: 900, delay: 90, expiry: 2000, lease: 100 }
  const long = { blockTime: 5000, delay: 500, expiry: 20_000, lease: 10_000 }

  beforeEach(() => {
    renewals = []
    altered = new Altered(
      (tenure) =>
        Object.defineProperty(tenure, 'deadline', {
          get: () => deadline(),
          set: (renewed: number) => {
            if (renewed < Number.POSITIVE_INFINITY) deadline = () => renewed
          },
        }),
      { renew: () => renewals.shift()?.() ?? Promise.resolve(true) },
    )
    mutex = new Mutex(altered.store, short)
  })

  it('takes place for one who can renew it in time, and not for one who needs longer', async () => {
    const never = () => new Promise<boolean>(() => {})
    for (const [next, expected] of [
      [mutex, 0],
      [mutex.with(long), 1],
    ] as const) {
      deadline = () => performance.now() + 50
      renewals = [never]
      altered.releases = 0
      const lock = await mutex.acquireLock('key')
      const waiting = next.acquireLock('key')
      await lock.release()
      const held = await waiting
      expect(altered.releases).to.equal(expected)
      await held.release()
    }
  })

  it('does not take place if the lease is one of those that are renewed well before they end', async () => {
    deadline = () => performance.now() + 50
    renewals = [() => new Promise<boolean>(() => {})]
    altered.releases = 0
    const lock = await mutex.with(long).acquireLock('key')
    const waiting = mutex.acquireLock('key')
    await lock.release()
    await (await waiting).release()
    expect(altered.releases).to.equal(2)
  })

  it('is over if a stall lasts until after it, whatever a renewal says then', async () => {
    const end = performance.now() + 100
    deadline = () => end
    renewals = [
      async () => {
        stall(150)
        return true
      },
    ]
    const lock = await mutex.with(long).acquireLock('key')
    expect(lock.signal.aborted).to.equal(true)
    expect(await rejection(lock.release())).to.be.instanceOf(MutexUnlockError)
  })

  it('leaves time for another renewal if one fails, however long the next lease is', async () => {
    const end = performance.now() + 400
    deadline = () => end
    let tries = 0
    const failing = async () => {
      tries++
      throw new Error('not now')
    }
    renewals = [failing]
    const lock = await mutex.with(long).acquireLock('key')
    await new Promise((resolve) => setTimeout(resolve, 600))
    expect(tries).to.equal(1)
    expect(lock.signal.aborted).to.equal(false)
    await lock.release()
  })
})

describe('a hand-over inside the process, when others might not be heard of', () => {
  it('asks the store, and sees to it that they are, though nobody has come for long', async () => {
    let listens = 0
    const listen = () => void listens++
    const more = { listen, listeningSince: Number.POSITIVE_INFINITY }
    const altered = new Altered((tenure) => tenure, more)
    const mutex = new Mutex(altered.store)
    const lock = await mutex.acquireLock('key')
    const waiting = mutex.acquireLock('key')
    listens = 0
    await new Promise((resolve) => setTimeout(resolve, 60))
    await lock.release()
    await (await waiting).release()
    expect(altered.releases).to.equal(2)
    expect(listens).to.equal(1)
  })

  it('takes place at once all the same, while what the store has said of them is fresh', async () => {
    const altered = new Altered(
      (tenure) =>
        Object.defineProperty(tenure, 'heard', {
          get: () => performance.now() - 20,
          set: () => {},
        }),
      { listeningSince: Number.POSITIVE_INFINITY },
    )
    const mutex = new Mutex(altered.store)
    const lock = await mutex.acquireLock('key')
    const waiting = mutex.acquireLock('key')
    await lock.release()
    await (await waiting).release()
    expect(altered.releases).to.equal(1)
  })
})

describe('what a tenure in Redis has for hand-overs', () => {
  it('is a token for each microsecond since its grant, less a margin for the clocks', () => {
    const bid = new Bid({} as never, { policy: {} } as never, 1, 'instance', namesOf('lock', ''))
    bid.first = 5_000_000
    bid.since = 70
    expect(bid.lastToken(70)).to.equal(5_000_000)
    expect(bid.lastToken(71)).to.be.within(5_000_001, 5_000_999)
    expect(bid.lastToken(1070)).to.be.within(5_900_000, 5_999_999)
  })
})
