import { expect } from 'chai'
import type { Redis } from 'ioredis'
import { freight, type Names, type Verb } from '../../packages/core/src/stores/quorum/master.js'
import { until } from '../conformance/ground.js'
import { redisClients } from '../support/clients.js'
import { freshKey, sharedRedis } from '../support/redis.js'

const LEASE = 60_000
const REACH = 1000

describe('the scripts of a quorum', () => {
  let redis: Redis
  let names: Names

  beforeEach(() => {
    redis = redisClients[0]!.create(sharedRedis().port)
    const lock = freshKey()
    names = { lock, waiting: `${lock}:waiting`, fence: `${lock}:fence` }
  })

  /** What one item of a call gives. */
  async function run(verb: Verb, ...args: (string | number)[]): Promise<(string | number)[]> {
    const keys: string[] = []
    freight.pack(keys, names, false)
    const { text } = freight.scripts[verb]
    return (await redis.eval(text, keys.length, ...keys, ...args)) as (string | number)[]
  }

  const acquire = (owner: string, pause = 0, lease = LEASE) =>
    run('acquire', owner, lease, REACH, pause)
  const renew = (owner: string, ms: number, token = 0) => run('renew', owner, ms, token, REACH)
  const release = (owner: string, token = 0, pause = 0) => run('release', owner, token, pause)
  const holder = () => redis.get(names.lock)
  const fence = async () => Number((await redis.get(names.fence))?.split('|')[0] ?? 0)

  it('give a vote to the first who asks, and to nobody else before it is back', async () => {
    const [given, first, last, nextAsk] = await acquire('a|1.1')
    expect([given, Number(last) - Number(first), nextAsk]).to.deep.equal([1, REACH - 1, -1])
    const [refused, left, by] = await acquire('b|1.1')
    expect([refused, by]).to.deep.equal([0, 'a|1.1'])
    expect(left).to.be.within(1, LEASE)
    expect(await release('b|1.1')).to.deep.equal([0])
    expect(await release('a|1.1')).to.deep.equal([1, -1])
    expect((await acquire('b|1.1'))[0]).to.equal(1)
  })

  it('give a vote again to who has it, for no less time', async () => {
    await acquire('a|1.1')
    expect((await acquire('a|1.1', 0, 1000))[0]).to.equal(1)
    expect(await redis.pttl(names.lock)).to.be.above(1000)
  })

  it('give the vote of an earlier try to the next, and never back', async () => {
    await acquire('a|1.2')
    expect((await acquire('a|1.10'))[0]).to.equal(1)
    expect(await release('a|1.2')).to.deep.equal([0])
    expect((await acquire('a|1.2'))[0]).to.equal(0)
    expect((await acquire('a|2.11'))[0], 'for another caller').to.equal(0)
    expect((await acquire('b|1.11'))[0], 'of another process').to.equal(0)
    expect(await holder()).to.equal('a|1.10')
  })

  it('do not take what is no try of ours for one', async () => {
    await redis.set(names.lock, 'foreign')
    expect(await acquire('a|1.2')).to.deep.equal([0, -1, 'foreign'])
    expect(await renew('a|1.2', LEASE)).to.deep.equal([0])
    expect(await release('a|1.2')).to.deep.equal([0])
    expect(await holder()).to.equal('foreign')
  })

  it('renew what is there, and never make or shorten it', async () => {
    expect(await renew('a|1.1', LEASE)).to.deep.equal([0])
    expect(await redis.exists(names.lock)).to.equal(0)
    const [, first] = await acquire('a|1.1')
    const ahead = Number(first) + 50_000
    expect(await renew('a|1.1', 1000, ahead)).to.deep.equal([1, String(ahead + REACH), -1])
    expect(await redis.pttl(names.lock)).to.be.above(1000)
    expect(await renew('a|1.1', 2 * LEASE)).to.deep.equal([1, String(ahead + REACH), -1])
    expect(await redis.pttl(names.lock)).to.be.above(LEASE)
  })

  describe('tokens', () => {
    it('are higher than all that was used, over the loss of the fence too', async () => {
      const [, first] = await acquire('a|1.1')
      const used = Number(first) + 10
      await release('a|1.1', used)
      expect(await fence()).to.equal(used)
      const [, second] = await acquire('b|1.1')
      expect(Number(second)).to.be.above(used)
      await release('b|1.1', Number(second))
      await redis.del(names.fence)
      const [, third] = await acquire('c|1.1')
      expect(Number(third)).to.be.above(Number(second))
    })

    it('stay above those of an owner who came between, when a late command of another comes', async () => {
      const ahead = 5_000_000_000_000_000
      const [, old] = await acquire('a|1.1')
      await redis.del(names.lock)
      await acquire('b|1.1')
      await renew('b|1.1', LEASE, ahead)
      await release('b|1.1', ahead + 7)
      expect(await fence()).to.equal(ahead + 7)
      // Sent again by the client, and then given back as if it had been held.
      await acquire('a|1.1')
      await release('a|1.1', Number(old))
      expect(await fence()).to.equal(ahead + 7)
    })

    it('of a try that led to nothing are used by the next', async () => {
      const [, first] = await acquire('a|1.1')
      for (const n of [2, 3, 4]) await acquire(`a|1.${n}`)
      await release('a|1.4')
      expect(await fence()).to.equal(0)
      await acquire('a|1.5')
      expect((await fence()) - Number(first)).to.be.below(10_000_000)
    })

    it('are not taken back below what a renewal has reserved, by an acquire that comes twice', async () => {
      const [, first] = await acquire('a|1.1')
      const ahead = Number(first) + 1_000_000_000
      await renew('a|1.1', LEASE, ahead)
      await acquire('a|1.1')
      expect(await fence()).to.equal(ahead + REACH)
    })
  })

  describe('who waits', () => {
    it('is told to the holder, but for its own process', async () => {
      await acquire('a|1.1')
      await acquire('b|1.1', 30_000)
      await acquire('a|2.1', 10_000)
      const [, , asks] = await renew('a|1.1', LEASE)
      expect(asks).to.be.within(1, 30_000)
      const [, first] = await release('a|1.1')
      expect(first).to.be.within(1, 30_000)
      expect((await acquire('b|1.2'))[3]).to.equal(-1)
    })

    it('is said by one who gives back and comes again', async () => {
      await acquire('a|1.1')
      await release('a|1.1', 0, 20_000)
      expect((await acquire('b|1.1'))[3]).to.be.within(1, 20_000)
    })

    it('is not said by a try', async () => {
      await acquire('a|1.1')
      await acquire('b|1.1', 0)
      expect(await release('a|1.1')).to.deep.equal([1, -1])
    })

    it('is forgotten soon after the time in which it was to ask again', async () => {
      await acquire('a|1.1')
      await acquire('b|1.1', 1)
      await until(async () => (await renew('a|1.1', LEASE))[2] === -1)
      await until(async () => (await redis.exists(names.waiting)) === 0)
    })
  })

  it('do each item for itself', async () => {
    const other = { ...names, lock: `${names.lock}:2` }
    await redis.rpush(other.lock, 'no string')
    const keys: string[] = []
    for (const item of [other, names]) freight.pack(keys, item, false)
    const { text } = freight.scripts.acquire
    const args = ['a|1.1', LEASE, REACH, 0, 'a|2.1', LEASE, REACH, 0]
    const replies = await redis.eval(text, keys.length, ...keys, ...args)
    const [failed, given] = replies as [[number, string], [number]]
    expect(failed[0]).to.equal(-2)
    expect(failed[1]).to.match(/WRONGTYPE/)
    expect(given[0]).to.equal(1)
    await redis.del(other.lock, names.lock)
  })

  it('leave nothing that does not expire', async () => {
    await acquire('a|1.1')
    await acquire('b|1.1', 1000)
    for (const name of Object.values(names)) expect(await redis.pttl(name)).to.be.above(0)
    await release('a|1.1', 1)
    expect(await redis.pttl(names.fence)).to.be.above(0)
    expect(await redis.exists(names.lock)).to.equal(0)
  })
})
