import { EventEmitter, once } from 'node:events'
import {
  BlockTimeExceedError,
  ClientGoneError,
  type Lock,
  Mutex,
  MutexExpiredError,
  MutexLockError,
  MutexLostError,
  MutexQueueFullError,
  MutexStoreError,
  MutexUnlockError,
  memoryStore,
  type Store,
  type Tenure,
} from '@redismutex/core'
import { expect } from 'chai'
import type { Line } from '../../packages/core/src/line.js'
import { abortSignal, stopRenewing } from '../../packages/core/src/lock.js'
import { aborted, range, rejection, stall, turns } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'

/** A store that says what a test has it say, and when. */
class Puppet extends EventEmitter {
  readonly asked: Tenure[] = []
  readonly cancelled: Tenure[] = []
  readonly released: Tenure[] = []
  readonly store: Store = {
    ...memoryStore(),
    acquire: (tenure) => this.#ask(tenure),
    cancel: (tenure) => void this.cancelled.push(tenure),
    release: async (tenure, next) => {
      this.released.push(tenure)
      if (next) this.#ask(next)
      return true
    },
    renew: () => this.renewal(),
  }
  renewal: () => Promise<boolean> = async () => true

  #ask(tenure: Tenure): void {
    this.asked.push(tenure)
    this.emit('ask')
  }

  grant(tenure: Tenure | undefined, lease: number = Number.POSITIVE_INFINITY): void {
    if (!tenure) throw new Error('it was not asked for')
    tenure.heard = performance.now()
    tenure.deadline = tenure.heard + lease
    tenure.token = this.asked.length
    tenure.asker.granted(tenure)
  }
}

describe('a line', () => {
  let puppet: Puppet

  beforeEach(() => {
    puppet = new Puppet()
  })

  function create(options?: object): Mutex {
    const mutex = new Mutex(puppet.store, options)
    atEnd(() => mutex.close())
    return mutex
  }

  /** The two who wait for the key leave in this moment; resolves when both know. */
  function allLeave(mutex: Mutex): Promise<unknown> {
    const leaving = range(2).map(() => new AbortController())
    const left = leaving.map(({ signal }) => rejection(mutex.acquireLock('key', { signal })))
    for (const controller of leaving) controller.abort()
    return Promise.all(left)
  }

  it('asks once for those who come in the moment in which all others leave', async () => {
    const mutex = create()
    const leaving = allLeave(mutex)
    const lock = mutex.acquireLock('key')
    const next = mutex.acquireLock('key')
    await leaving
    await turns()
    const [first, second] = puppet.asked
    expect(puppet.asked).to.have.length(2)
    expect(puppet.cancelled).to.deep.equal([first])
    puppet.grant(second)
    await (await lock).release()
    await (await next).release()
    expect(puppet.asked).to.have.length(2)
  })

  it('asks for nobody while one holds who came in the moment in which all others left', async () => {
    const mutex = create()
    const leaving = allLeave(mutex)
    const lock = mutex.acquireLock('key')
    const next = mutex.acquireLock('key')
    puppet.grant(puppet.asked[1])
    await leaving
    await turns()
    expect(puppet.asked).to.have.length(2)
    await (await lock).release()
    await (await next).release()
  })

  it('ends the wait of one who is alone, and whom the store has told to wait', async () => {
    const mutex = create({ storeTimeout: 10, blockTime: 30 })
    const waiting = rejection(mutex.acquireLock('key'))
    const [tenure] = puppet.asked
    tenure?.asker.queued(tenure)
    expect(await waiting).to.be.instanceOf(BlockTimeExceedError)
    expect(puppet.cancelled).to.deep.equal([tenure])
  })

  it('does not blame the store for the wait of one who was told by it to wait', async () => {
    const mutex = create({ blockTime: 60 })
    const first = rejection(mutex.acquireLock('key', { blockTime: 30 }))
    const second = rejection(mutex.acquireLock('key'))
    const [tenure] = puppet.asked
    tenure?.asker.queued(tenure)
    for (const error of [await first, await second]) {
      expect(error).to.be.instanceOf(BlockTimeExceedError)
    }
  })

  it('counts one whom the store has not answered for his whole blockTime as its failure', async () => {
    const mutex = create({ blockTime: 30 })
    expect(await rejection(mutex.acquireLock('key'))).to.be.instanceOf(MutexStoreError)
    expect(mutex.stats()).to.include({ refused: 1, storeErrors: 1 })
  })

  it('has room for one whom the store has not told to wait beside those who wait', async () => {
    const mutex = create({ maxWaiting: 1 })
    const lock = mutex.acquireLock('key')
    const next = mutex.acquireLock('key')
    expect(await rejection(mutex.acquireLock('key'))).to.be.instanceOf(MutexQueueFullError)
    puppet.grant(puppet.asked[0])
    await (await lock).release()
    await (await next).release()
  })

  it('refuses, when the store has failed, none but those who waited when it was asked', async () => {
    const mutex = create()
    const before = range(2).map(() => rejection(mutex.acquireLock('key')))
    const asked = performance.now()
    await turns()
    const later = mutex.acquireLock('key')
    const [tenure] = puppet.asked
    tenure?.asker.failed(tenure, new MutexStoreError('out of reach'), asked)
    for (const error of await Promise.all(before)) expect(error).to.be.instanceOf(MutexStoreError)
    expect(puppet.asked).to.have.length(2)
    puppet.grant(puppet.asked[1])
    await (await later).release()
  })

  it('refuses the first, whenever it was asked for, when the store has failed', async () => {
    const mutex = create()
    const first = rejection(mutex.acquireLock('key'))
    const next = mutex.acquireLock('key')
    const [tenure] = puppet.asked
    const cause = new MutexStoreError('out of reach')
    tenure?.asker.failed(tenure, cause, Number.NEGATIVE_INFINITY)
    expect(await first).to.be.instanceOf(MutexStoreError)
    puppet.grant(puppet.asked[1])
    await (await next).release()
  })

  it('tells one who waits for several keys that time was up, though the last was not answered', async () => {
    const mutex = create({ blockTime: 30 })
    const waiting = rejection(mutex.acquireLock(['a', 'b']))
    const [a] = puppet.asked
    const asking = once(puppet, 'ask')
    puppet.grant(a)
    await asking
    expect(await waiting).to.be.instanceOf(BlockTimeExceedError)
    expect(puppet.released).to.deep.equal([a])
  })

  it('takes several keys for lost when a stall has ended one that nobody has looked at', async () => {
    const mutex = create({ blockTime: 5000, lease: 100 })
    puppet.renewal = () => new Promise(() => {})
    const waiting = rejection(mutex.acquireLock(['a', 'b']))
    const asking = once(puppet, 'ask')
    puppet.grant(puppet.asked[0], 100)
    await asking
    stall(150)
    puppet.grant(puppet.asked[1])
    const error = await waiting
    expect(error).to.be.instanceOf(MutexLostError)
    expect(error).to.have.property('key', 'a')
    expect(puppet.released).to.deep.equal(puppet.asked)
  })

  it('goes on with nobody when the lock is lost in a pause, until the store gives it again', async () => {
    const mutex = create()
    const lock = mutex.acquireLock('key')
    const next = mutex.acquireLock('key')
    const [tenure] = puppet.asked as [Tenure]
    tenure.lastToken = () => 0
    puppet.grant(tenure)
    await (await lock).release()
    const line = tenure.asker as Line
    line.lose(tenure)
    await turns()
    expect(mutex.stats()).to.include({ held: 0, waiting: 1 })
    expect(puppet.asked).to.have.length(2)
    puppet.grant(puppet.asked[1])
    await (await next).release()
  })

  it('is not forgotten while somebody holds, when others left and came in one moment', async () => {
    const mutex = create()
    const leaving = allLeave(mutex)
    const brief = mutex.acquireLock('key')
    puppet.grant(puppet.asked[1])
    await (await brief).release()
    const lock = mutex.acquireLock('key')
    puppet.grant(puppet.asked[2])
    await leaving
    await turns()
    const next = mutex.acquireLock('key')
    expect(mutex.stats()).to.include({ held: 1, waiting: 1 })
    expect(puppet.asked).to.have.length(3)
    await (await lock).release()
    await (await next).release()
  })

  it('ends the wait of one who comes when all others have left', async () => {
    const mutex = create({ blockTime: 5000 })
    const lock = mutex.acquireLock('key')
    puppet.grant(puppet.asked[0])
    const leaving = new AbortController()
    const left = rejection(mutex.acquireLock('key', { signal: leaving.signal, blockTime: 20 }))
    leaving.abort()
    await left
    const waiting = rejection(mutex.acquireLock('key', { blockTime: 40 }))
    expect(await waiting).to.be.instanceOf(BlockTimeExceedError)
    await (await lock).release()
  })

  describe('in a pause between two holders', () => {
    let tokens: boolean
    let mutex: Mutex
    let next: Promise<Lock>
    let leaving: AbortController

    beforeEach(async () => {
      tokens = false
      leaving = new AbortController()
      mutex = create()
      const lock = mutex.with({ blockTime: 90, expiry: 100 }).acquireLock('key')
      next = mutex.acquireLock('key', { signal: leaving.signal })
      const [tenure] = puppet.asked as [Tenure]
      tenure.lastToken = () => (tokens ? Number.POSITIVE_INFINITY : 0)
      puppet.grant(tenure)
      await (await lock).release()
      expect(mutex.stats()).to.include({ held: 0, waiting: 1 })
    })

    it('lets only one go on, though the time of the last one ends meanwhile', async () => {
      const last = mutex.acquireLock('key')
      await new Promise((resolve) => setTimeout(resolve, 150))
      tokens = true
      await turns()
      expect(mutex.stats()).to.include({ held: 1, waiting: 1 })
      await (await next).release()
      await (await last).release()
    })

    it('lets nobody go on with what was given back meanwhile', async () => {
      const left = rejection(next)
      leaving.abort()
      const late = mutex.acquireLock('key')
      tokens = true
      await left
      await turns()
      expect(mutex.stats()).to.include({ held: 0, waiting: 1 })
      expect(puppet.released).to.have.length(1)
      puppet.grant(puppet.asked[1])
      await (await late).release()
    })
  })

  it('is left alone by a lock that was limited once and is over', async () => {
    const mutex = create({ expiry: Number.POSITIVE_INFINITY, blockTime: 5000 })
    const brief = mutex.with({ blockTime: 50, expiry: 60, lease: 60 })
    const lock = mutex.acquireLock('key')
    const next = brief.acquireLock('key', { blockTime: 59 })
    puppet.grant(puppet.asked[0])
    const resume = stopRenewing(await lock)
    await (await lock).release()
    resume()
    expect(await aborted((await next).signal)).to.be.instanceOf(MutexExpiredError)
  })

  it('tells who releases when told what the store says, if all who wait have aborted as well', async () => {
    const mutex = create()
    const controller = new AbortController()
    const { signal } = controller
    const lock = mutex.acquireLock('key')
    puppet.grant(puppet.asked[0])
    puppet.store.release = async () => false
    const holder = await lock
    const releasing = new Promise<unknown>((resolve) => {
      signal.addEventListener('abort', () => resolve(rejection(holder.release())))
    })
    const waiting = rejection(mutex.acquireLock('key', { signal }))
    controller.abort()
    expect(await releasing).to.be.instanceOf(MutexUnlockError)
    expect(await waiting).to.equal(signal.reason)
  })

  describe('that has been busy, and whose last holder is done', () => {
    let mutex: Mutex
    let tenure: Tenure
    let released: Promise<void>
    let isReleased: boolean

    beforeEach(async () => {
      mutex = create({ lease: 5000 })
      const [first, last] = [mutex.acquireLock('key'), mutex.acquireLock('key')]
      tenure = puppet.asked[0] as Tenure
      puppet.grant(tenure, 5000)
      await (await first).release()
      isReleased = false
      released = (await last).release()
      const told = () => {
        isReleased = true
      }
      released.then(told, told)
    })

    it('keeps the lock until the sockets have been read once more, for who comes then', async () => {
      await turns(1)
      expect(isReleased).to.equal(false)
      const next = await mutex.acquireLock('key')
      await released
      await turns()
      expect(next.signal.aborted).to.equal(false)
      expect(puppet.released).to.deep.equal([])
      await next.release()
      expect(puppet.released).to.deep.equal([tenure])
      expect(puppet.asked).to.deep.equal([tenure])
    })

    it('gives it back if nobody comes, and then tells who released it', async () => {
      await turns(1)
      expect(puppet.released).to.deep.equal([])
      await released
      expect(puppet.released).to.deep.equal([tenure])
      const next = mutex.acquireLock('key')
      expect(puppet.asked).to.have.length(2)
      puppet.grant(puppet.asked[1])
      await (await next).release()
    })

    it('has it for one who only tries', async () => {
      const lock = await mutex.acquireLock('key', { blocking: false })
      expect(await rejection(mutex.acquireLock('key', { blocking: false }))).to.be.instanceOf(
        MutexLockError,
      )
      await lock.release()
    })

    it('has it for those who come at once in the order in which they came', async () => {
      const order: number[] = []
      const come = (n: number) => mutex.runExclusive('key', () => order.push(n))
      await Promise.all([come(1), come(2), come(3)])
      expect(order).to.deep.equal([1, 2, 3])
      expect(puppet.released).to.deep.equal([tenure])
    })

    it('gives it back at once for those who have come elsewhere meanwhile', async () => {
      tenure.contended = true
      stall(3)
      const next = mutex.acquireLock('key')
      expect(puppet.released).to.deep.equal([tenure])
      await released
      puppet.grant(puppet.asked[1])
      await (await next).release()
    })

    it('does not give it to anybody when its lease is nearly over', async () => {
      tenure.deadline = performance.now() + 50
      const next = mutex.acquireLock('key')
      expect(puppet.released).to.deep.equal([tenure])
      puppet.grant(puppet.asked[1])
      await (await next).release()
    })

    it('says so if the store has given it to others meanwhile', async () => {
      ;(tenure.asker as Line).lose(tenure)
      expect(await rejection(released)).to.be.instanceOf(MutexUnlockError)
      await turns()
      expect(puppet.released).to.deep.equal([])
      const next = mutex.acquireLock('key')
      puppet.grant(puppet.asked[1])
      await (await next).release()
    })

    it('tells what the store says of it', async () => {
      puppet.store.release = async () => false
      expect(await rejection(released)).to.be.instanceOf(MutexUnlockError)
    })

    it('is drained only when it has been given back', async () => {
      await mutex.drain()
      expect(puppet.released).to.deep.equal([tenure])
    })

    it('gives it back when the mutex is closed', async () => {
      await mutex.close()
      expect(puppet.released).to.deep.equal([tenure])
    })
  })

  it('gives back at once what only one has held', async () => {
    const mutex = create({ lease: 5000 })
    const lock = mutex.acquireLock('key')
    puppet.grant(puppet.asked[0], 5000)
    void (await lock).release()
    expect(puppet.released).to.have.length(1)
  })

  it('gives back at once what others elsewhere wait for', async () => {
    const mutex = create({ lease: 5000 })
    const [first, last] = [mutex.acquireLock('key'), mutex.acquireLock('key')]
    puppet.grant(puppet.asked[0], 5000)
    await (await first).release()
    const [tenure] = puppet.asked as [Tenure]
    tenure.contended = true
    void (await last).release()
    expect(puppet.released).to.deep.equal([tenure])
  })

  it('is drained when the store has answered the release, and not before', async () => {
    const mutex = create()
    const lock = mutex.acquireLock('key')
    puppet.grant(puppet.asked[0])
    let answer = (_ours: boolean): void => {}
    puppet.store.release = () =>
      new Promise((resolve) => {
        answer = resolve
      })
    const released = (await lock).release()
    let isDrained = false
    const drained = mutex.drain().then(() => {
      isDrained = true
    })
    await turns()
    expect(isDrained).to.equal(false)
    answer(true)
    await released
    await drained
  })

  it('tells what became of several keys when all is known, and of the one that was lost', async () => {
    const mutex = create()
    const acquiring = mutex.acquireLock(['a', 'b'])
    const asking = once(puppet, 'ask')
    puppet.grant(puppet.asked[0])
    await asking
    puppet.grant(puppet.asked[1])
    const lock = await acquiring
    let answer = (_ours: boolean): void => {}
    puppet.store.release = async (tenure) =>
      tenure === puppet.asked[1] &&
      new Promise((resolve) => {
        answer = resolve
      })
    let isTold = false
    const told = rejection(lock.release()).finally(() => {
      isTold = true
    })
    await turns()
    expect(isTold).to.equal(false)
    answer(true)
    const error = await told
    expect(error).to.be.instanceOf(MutexUnlockError)
    expect(error).to.have.property('key', 'a')
  })

  it('keeps the reason of a signal for a holder who looks at it only later', async () => {
    const mutex = create()
    const acquiring = mutex.acquireLock('key')
    puppet.grant(puppet.asked[0])
    const lock = await acquiring
    const reason = new ClientGoneError('the client has left')
    abortSignal(lock, reason)
    expect(lock.signal.reason).to.equal(reason)
    await lock.release()
  })
})
