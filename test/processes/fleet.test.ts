import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import type { Redis } from 'ioredis'
import { redisClients } from '../support/clients.js'
import { sharedRedis } from '../support/redis.js'
import { type Contender, Fleet } from './fleet.js'

/** Resolves with how long it took, in ms. */
async function timed(work: Promise<unknown>): Promise<number> {
  const began = performance.now()
  await work
  return performance.now() - began
}

/** How long the fleet counts, in seconds: all four processes work without a pause. */
const COUNTING = process.env.REDISMUTEX_TEST_BESIDE_OTHERS ? 5 : 20

describe('a fleet of processes on one key', () => {
  let redis: Redis

  beforeEach(() => {
    redis = redisClients[0]!.create(sharedRedis().port)
  })

  /** Waits until so many processes are in the store's queue. */
  async function queued(fleet: Fleet, key: string, count: number): Promise<void> {
    const name = fleet.lock(key)
    while ((await redis.zcard(`redismutex:queue:{${name}}`)) < count) await sleep(5)
  }

  /** One after the other, in this order, waits for the key. */
  async function lineUp(fleet: Fleet, key: string, waiters: Contender[]): Promise<void> {
    for (const [index, waiter] of waiters.entries()) {
      await waiter.take(key)
      await queued(fleet, key, index + 1)
    }
  }

  it(`counts exactly, four processes with sixteen waiters each for ${COUNTING} s`, async function () {
    this.timeout(60_000)
    const fleet = new Fleet({ blockTime: 20_000, expiry: 30_000 })
    const members = await fleet.members(4)
    for (const { process } of members) {
      process.send({ type: 'count', key: 'counter', waiters: 16, ms: COUNTING * 1000 })
    }
    await sleep(COUNTING * 750)
    const results = await Promise.all(members.map(({ process }) => process.next('counted')))
    const counted = results.reduce((sum, result) => sum + Number(result.counted), 0)

    expect(Number(await redis.get(`${fleet.prefix}count`))).to.equal(counted)
    expect(counted).to.be.above(50 * COUNTING)
    for (const { disorder, counted } of results) {
      expect(disorder, 'tokens out of order').to.equal(0)
      expect(counted, 'acquisitions of one process').to.be.above(0)
    }

    await Promise.all(members.map((member) => member.end()))
    await redis.del(`${fleet.prefix}count`, `${fleet.prefix}token`)
    const left = await redis.keys(`*${fleet.prefix}*`)
    expect(left.filter((name) => !name.startsWith('redismutex:fence'))).to.deep.equal([])
  })

  it('serves the one that has waited longest, on whatever process it is', async () => {
    const fleet = new Fleet({ blockTime: 15_000, delay: 5000, expiry: 20_000 })
    const [holder, ...waiters] = await fleet.members(4)
    await holder!.take('key')
    await holder!.held()
    await lineUp(fleet, 'key', waiters)

    const order: number[] = []
    const all = waiters.map(async (waiter, index) => {
      await waiter.held()
      order.push(index)
      waiter.give()
    })
    holder!.give()
    await Promise.all(all)
    expect(order).to.deep.equal([0, 1, 2])
  })

  it('wakes the next process by a push, long before it would ask again', async () => {
    const fleet = new Fleet({ blockTime: 60_000, delay: 30_000, expiry: 70_000 })
    const [holder, waiter] = await fleet.members(2)
    await holder!.take('key')
    await holder!.held()
    await lineUp(fleet, 'key', [waiter!])
    holder!.give()
    // The message itself is bounded well below `delay`.
    await waiter!.held()
  })

  it('goes on within lease + delay when the holder is killed', async () => {
    const fleet = new Fleet({ blockTime: 15_000, delay: 300, expiry: 20_000, lease: 1500 })
    const [holder, waiter] = await fleet.members(2)
    await holder!.take('key')
    await holder!.held()
    await lineUp(fleet, 'key', [waiter!])
    holder!.process.kill('SIGKILL')
    await holder!.process.exited
    const left = await redis.pttl(fleet.lock('key'))
    expect(left, 'the lease outlives its process').to.be.within(0, 1500)
    // Another second is for this machine, not for the lock.
    expect(await timed(waiter!.held())).to.be.below(left + 300 + 1000)
  })

  for (const [how, signal] of [
    ['killed', 'SIGKILL'],
    ['stopped', 'SIGSTOP'],
  ] as const) {
    it(`loses no more than two seconds by a waiter that is ${how}`, async () => {
      const fleet = new Fleet({ blockTime: 15_000, delay: 500, expiry: 20_000 })
      const [holder, dead, waiter] = await fleet.members(3)
      await holder!.take('key')
      await holder!.held()
      await lineUp(fleet, 'key', [dead!, waiter!])
      dead!.process.kill(signal)
      holder!.give()
      expect(await timed(waiter!.held())).to.be.below(2000)
    })
  }

  it('lets a waiter that was stopped over its grant wait again, not hold', async () => {
    const fleet = new Fleet({ blockTime: 30_000, delay: 500, expiry: 40_000 })
    const [holder, stopped, waiter] = await fleet.members(3)
    await holder!.take('key')
    await holder!.held()
    await lineUp(fleet, 'key', [stopped!, waiter!])
    stopped!.process.kill('SIGSTOP')
    holder!.give()
    await waiter!.held()
    stopped!.process.kill('SIGCONT')
    let early = false
    const late = stopped!.held().then(() => {
      early = true
    })
    await queued(fleet, 'key', 1)
    expect(early).to.equal(false)
    waiter!.give()
    await late
  })

  it('tells a holder that was stopped beyond its lease, and leaves the next one alone', async () => {
    const fleet = new Fleet({ blockTime: 15_000, delay: 200, expiry: 20_000, lease: 1000 })
    const [stopped, waiter] = await fleet.members(2)
    await stopped!.take('key')
    await stopped!.held()
    await lineUp(fleet, 'key', [waiter!])
    stopped!.process.kill('SIGSTOP')
    await waiter!.held()
    const value = await redis.get(fleet.lock('key'))
    stopped!.process.kill('SIGCONT')
    expect(await stopped!.process.next('aborted')).to.include({ name: 'MutexLostError' })
    stopped!.give()
    expect(await stopped!.process.next('unreleased')).to.include({ name: 'MutexUnlockError' })
    expect(await redis.get(fleet.lock('key'))).to.equal(value)
    waiter!.give()
    await waiter!.process.next('released')
  })

  it('judges the lease by the clock when the event loop stalled, before any timer has run', async () => {
    const fleet = new Fleet({ blockTime: 10_000, expiry: 20_000, lease: 500 })
    const contender = await fleet.member()
    await contender.take('key')
    await contender.held()
    contender.process.send({ type: 'stall', ms: 1000 })
    expect(await contender.process.next('stalled')).to.include({ aborted: true })
  })
})
