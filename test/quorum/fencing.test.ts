import type { Lock, Mutex } from '@redismutex/core'
import { expect } from 'chai'
import fc from 'fast-check'
import type { Redis } from 'ioredis'
import { range, until } from '../conformance/ground.js'
import { freshKey } from '../support/redis.js'
import { leftoversOf, Masters, mutexOn } from './masters.js'

const options = { blockTime: 8000, delay: 100, expiry: 20_000, lease: 10_000 }
const HOUR = 3_600_000_000

describe('fencing tokens of a quorum', () => {
  let masters: Masters
  let clients: Redis[]
  let mutex: Mutex
  let key: string

  before(async () => {
    masters = await Masters.start(3)
  })

  after(() => masters.stop())

  beforeEach(async () => {
    await masters.renew()
    clients = masters.clients()
    mutex = mutexOn(masters.clients(), options)
    key = freshKey()
  })

  const fenceName = () => `redismutex:quorum-fence:{mutex:${key}}`
  const fenceAt = async (index: number) =>
    Number((await clients[index]?.get(fenceName()))?.split('|')[0] ?? 0)
  const setFence = (index: number, last: number) =>
    clients[index]?.set(fenceName(), `${last}|${last}`, 'PX', 60_000)
  /** A vote that this master has given to somebody else can't be had. */
  const take = (index: number) => clients[index]?.set(`mutex:${key}`, 'foreign')
  const free = (index: number) => clients[index]?.del(`mutex:${key}`)
  const tokenOf = (lock: Lock) => Number(lock.fencingToken)
  const now = async () => {
    const [seconds, micros] = (await (clients[0] as Redis).time()) as [number, number]
    return Number(seconds) * 1_000_000 + Number(micros)
  }

  it('rise from one majority to another whose clock is an hour behind', async () => {
    const ahead = (await now()) + HOUR
    await setFence(0, ahead)
    await take(2)
    const first = await mutex.acquireLock(key)
    expect(tokenOf(first)).to.be.above(ahead)
    const token = tokenOf(first)
    await first.release()
    await until(async () => (await leftoversOf(clients, key)).length === 1)
    await free(2)
    await take(0)
    const second = await mutex.acquireLock(key)
    expect(tokenOf(second)).to.be.above(token)
    await second.release()
  })

  it('rise over a holder that crashed, and its hand-overs', async () => {
    await setFence(0, (await now()) + HOUR)
    await take(2)
    const tokens: number[] = []
    const crashing = mutexOn(masters.clients(), options)
    await Promise.all(
      range(50).map(() =>
        crashing.runExclusive(key, (lock) => {
          tokens.push(tokenOf(lock))
        }),
      ),
    )
    const last = await crashing.acquireLock(key)
    tokens.push(tokenOf(last))
    expect(tokens).to.deep.equal([...new Set(tokens)].sort((a, b) => a - b))
    // As after a crash: the votes are gone, and nothing has been given back.
    await free(1)
    await free(2)
    await take(0)
    const lock = await mutex.acquireLock(key)
    expect(tokenOf(lock)).to.be.above(tokens.at(-1) as number)
    await lock.release()
  })

  it('take a second round only where clocks differ', async () => {
    const calls = async () => {
      const stats = (await clients[1]?.info('commandstats')) ?? ''
      return Number(stats.match(/cmdstat_evalsha:calls=(\d+)/)?.[1])
    }
    await mutex.runExclusive(freshKey(), () => {})
    await setFence(0, (await now()) + HOUR)
    await take(2)
    const before = await calls()
    await (await mutex.acquireLock(key)).release()
    expect((await calls()) - before).to.equal(3)
    await free(2)
    const between = await calls()
    const other = freshKey()
    await (await mutex.acquireLock(other)).release()
    // Two of three are enough to know that it is given back.
    await until(async () => (await leftoversOf(clients, other)).length === 0)
    expect((await calls()) - between).to.equal(2)
  })

  it('leave no gap behind, so that they do not outrun the clock', async () => {
    for (const _ of range(20)) await mutex.runExclusive(key, () => {})
    const lock = await mutex.acquireLock(key)
    const token = tokenOf(lock)
    await lock.release()
    await until(async () => (await leftoversOf(clients, key)).length === 0)
    // But for what a master answered too late to be asked.
    for (const index of range(3)) expect(await fenceAt(index)).to.be.at.most(token + 1_000)
    expect(token).to.be.below((await now()) + 1_000_000)
  })

  it('are not used up by tries that fail', async () => {
    await clients[0]?.set(fenceName(), `${(await now()) + HOUR}|0`, 'PX', 60_000)
    const before = await fenceAt(0)
    await take(1)
    await take(2)
    for (const _ of range(5)) expect(await mutex.tryAcquire(key)).to.equal(null)
    await until(async () => (await clients[0]?.exists(`mutex:${key}`)) === 0)
    expect(await fenceAt(0)).to.equal(before)
  })

  it('rise whatever majority gives them, and however far a clock is ahead', async () => {
    const step = fc.record({
      absent: fc.integer({ min: 0, max: 2 }),
      ahead: fc.integer({ min: 0, max: 2 }),
      by: fc.constantFrom(0, 50, 200_000, HOUR),
      crashes: fc.boolean(),
      holds: fc.integer({ min: 1, max: 3 }),
    })
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 2, maxLength: 8 }), async (steps) => {
        key = freshKey()
        let last = 0
        for (const { absent, ahead, by, crashes, holds } of steps) {
          if (by > 0) await setFence(ahead, Math.max(await fenceAt(ahead), await now()) + by)
          await take(absent)
          const holder = mutexOn(masters.clients(), options)
          let lock = await holder.acquireLock(key)
          for (const hold of range(holds)) {
            expect(tokenOf(lock)).to.be.above(last)
            last = tokenOf(lock)
            if (hold === holds - 1) break
            const next = holder.acquireLock(key)
            await lock.release()
            lock = await next
          }
          if (!crashes) await lock.release()
          // What a crashed holder leaves ends with its lease.
          await until(async () => (await leftoversOf(clients, key)).length <= 1 || crashes)
          for (const index of range(3)) await free(index)
          await holder.close()
        }
      }),
      { numRuns: 15 },
    )
  })
})
