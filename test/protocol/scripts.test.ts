import { expect } from 'chai'
import type { Redis } from 'ioredis'
import { namesOf } from '../../packages/core/src/stores/redis/names.js'
import { run } from '../../packages/core/src/stores/redis/scripts.js'
import { atEnd } from '../support/cleanup.js'
import { redisClients } from '../support/clients.js'
import { freshKey, sharedRedis, startRedis } from '../support/redis.js'
import { ask, Mutexlike, Peer, type Reply } from './redis-state.js'

const GRANTED = 1
const QUEUED = 0
const REFUSED = -1
const FAILED = -2

for (const client of redisClients) {
  describe(`the scripts, through ${client.name}`, () => {
    let redis: Redis
    let mutex: Mutexlike
    let alice: Peer
    let bob: Peer

    beforeEach(async () => {
      const { port } = sharedRedis()
      redis = client.create(port)
      mutex = new Mutexlike(redis)
      alice = await Peer.start(client.create(port))
      bob = await Peer.start(client.create(port))
    })

    describe('acquire', () => {
      it('grants a free lock for the whole lease, with tokens made from Redis’s clock', async () => {
        const owner = alice.owner()
        const [seconds, micros] = await redis.time()
        const [verdict, first, last, others] = await mutex.acquire(owner, { lease: 5000 })
        expect(verdict).to.equal(GRANTED)
        expect(others).to.equal(0)
        expect(Number(first)).to.be.at.least(Number(seconds) * 1e6 + Number(micros))
        expect(Number(last) - Number(first)).to.equal(999)
        expect(await redis.get(mutex.lock)).to.equal(owner)
        expect(await redis.pttl(mutex.lock)).to.be.within(1, 5000)
        expect(await redis.exists(mutex.queue)).to.equal(0)
      })

      it('grants again what it granted, for a full lease from then on', async () => {
        const owner = alice.owner()
        const [, first] = await mutex.acquire(owner, { lease: 5000 })
        await redis.pexpire(mutex.lock, 100)
        const [verdict, again] = await mutex.acquire(owner, { lease: 5000 })
        expect(verdict).to.equal(GRANTED)
        expect(Number(again)).to.be.at.least(Number(first))
        expect(await redis.pttl(mutex.lock)).to.be.above(4000)
      })

      it('queues when the lock is held, tells how long for, and tells the holder', async () => {
        const holder = alice.owner()
        await mutex.acquire(holder)
        const waiter = bob.owner()
        const [verdict, left] = await mutex.acquire(waiter)
        expect(verdict).to.equal(QUEUED)
        expect(Number(left)).to.be.within(1, 5000)
        expect(await mutex.queued()).to.deep.equal([waiter])
        expect(await alice.heard()).to.deep.equal([`contended|${holder.split('|')[1]}`])
        expect(await redis.pttl(mutex.queue)).to.be.within(1, 20_000)
      })

      it('does not queue a try', async () => {
        await mutex.acquire(alice.owner())
        const [verdict] = await mutex.try(bob.owner())
        expect(verdict).to.equal(REFUSED)
        expect(await redis.exists(mutex.queue)).to.equal(0)
        expect(await alice.heard()).to.deep.equal([])
      })

      it('says of a lock without an end that it is held for ever', async () => {
        await redis.set(mutex.lock, 'a stranger')
        expect(await mutex.acquire(alice.owner())).to.deep.equal([QUEUED, -1])
      })

      it('orders the queue by age, not by arrival, and heals an entry’s score', async () => {
        await mutex.acquire(alice.owner())
        const [young, old] = [bob.owner(), bob.owner()]
        await mutex.acquire(young, { waited: 100 })
        await mutex.acquire(old, { waited: 5000 })
        expect(await mutex.queued()).to.deep.equal([old, young])
        await mutex.acquire(young, { waited: 9000 })
        expect(await mutex.queued()).to.deep.equal([young, old])
      })

      it('gives a lock whose holder vanished to the head of the queue, and not to who asks', async () => {
        await mutex.acquire(alice.owner())
        const [first, second] = [alice.owner(), bob.owner()]
        await mutex.acquire(first, { waited: 2000 })
        await redis.del(mutex.lock)
        expect((await mutex.acquire(second))[0]).to.equal(QUEUED)
        expect(await redis.get(mutex.lock)).to.equal(first)
        expect(await mutex.queued()).to.deep.equal([second])
        expect((await alice.heard()).at(-1)).to.match(/^grant\|/)
      })

      it('gives it to who asks if that one is the oldest', async () => {
        await mutex.acquire(alice.owner())
        const [first, second] = [alice.owner(), bob.owner()]
        await mutex.acquire(first, { waited: 2000 })
        await redis.del(mutex.lock)
        const [verdict, , , others] = await mutex.acquire(second, { waited: 9000 })
        expect([verdict, others]).to.deep.equal([GRANTED, 1])
        expect(await mutex.queued()).to.deep.equal([first])
      })

      it('refuses a try while somebody waits for a free lock, and wakes that one', async () => {
        await mutex.acquire(alice.owner())
        const waiter = alice.owner()
        await mutex.acquire(waiter)
        await redis.del(mutex.lock)
        expect((await mutex.try(bob.owner()))[0]).to.equal(REFUSED)
        expect(await redis.get(mutex.lock)).to.equal(waiter)
      })

      it('skips and removes those whose time to wait is over', async () => {
        await mutex.acquire(alice.owner())
        await mutex.acquire(alice.owner(), { waited: 10_001, blockTime: 10_000 })
        await redis.del(mutex.lock)
        expect((await mutex.acquire(bob.owner()))[0]).to.equal(GRANTED)
        expect(await redis.exists(mutex.queue)).to.equal(0)
      })

      it('keeps those who wait for ever', async () => {
        await mutex.acquire(alice.owner())
        const waiter = alice.owner()
        await mutex.acquire(waiter, { waited: 1_000_000, blockTime: 0 })
        await redis.del(mutex.lock)
        expect((await mutex.acquire(bob.owner()))[0]).to.equal(QUEUED)
        expect(await redis.get(mutex.lock)).to.equal(waiter)
      })
    })

    describe('release', () => {
      it('leaves nothing but a fence with the last token used, which expires', async () => {
        const owner = alice.owner()
        const [, first] = await mutex.acquire(owner)
        expect(await mutex.release(owner, Number(first) + 3)).to.deep.equal([1])
        expect(await redis.exists(mutex.lock, mutex.queue)).to.equal(0)
        expect(await redis.get(mutex.fence)).to.equal(`${Number(first) + 3}|${owner}`)
        expect(await redis.pttl(mutex.fence)).to.be.within(1, 10_000)
      })

      it('passes the lock to the head as a claim, which the head is told of with its age', async () => {
        const [holder, waiter, other] = [alice.owner(), bob.owner(), bob.owner()]
        await mutex.acquire(holder)
        await mutex.acquire(waiter, { waited: 3000, claim: 1200 })
        await mutex.acquire(other)
        expect(await mutex.release(holder, 1)).to.deep.equal([1])
        expect(await redis.get(mutex.lock)).to.equal(waiter)
        expect(await redis.pttl(mutex.lock)).to.be.within(1, 1200)
        expect(await mutex.queued()).to.deep.equal([other])
        const [kind, first, last, others, age, n] = (await bob.heard()).at(-1)!.split('|')
        expect([kind, others, n]).to.deep.equal(['grant', '1', waiter.split('|')[1]])
        expect(Number(last) - Number(first)).to.equal(999)
        expect(Number(age)).to.be.within(3_000_000, 9_000_000)
      })

      it('answers the same when it comes twice, even after others have held the lock', async () => {
        const [first, second] = [alice.owner(), bob.owner()]
        await mutex.acquire(first)
        expect(await mutex.release(first, 1)).to.deep.equal([1])
        expect(await mutex.release(first, 1)).to.deep.equal([1])
        await mutex.acquire(second)
        expect(await mutex.release(first, 1)).to.deep.equal([1])
        expect(await redis.get(mutex.lock)).to.equal(second)
      })

      it('touches nothing when the lock is somebody else’s, and says so', async () => {
        const [stranger, owner] = [alice.owner(), bob.owner()]
        await mutex.acquire(owner)
        const fence = await redis.get(mutex.fence)
        expect(await mutex.release(stranger, 1)).to.deep.equal([0])
        expect(await redis.get(mutex.lock)).to.equal(owner)
        expect(await redis.get(mutex.fence)).to.equal(fence)
      })

      it('removes what its owner left in the queue', async () => {
        const [owner, other] = [alice.owner(), bob.owner()]
        await mutex.acquire(other)
        await mutex.acquire(owner)
        await mutex.release(owner, 1)
        expect(await mutex.queued()).to.deep.equal([])
      })

      it('grants the next of the same process in its reply when that one is the oldest', async () => {
        const [holder, young, heir] = [alice.owner(), bob.owner(), alice.owner()]
        await mutex.acquire(holder)
        await mutex.acquire(young, { waited: 10 })
        const [kept, verdict, first, , others] = await mutex.release(holder, 1, heir, {
          waited: 500,
        })
        expect([kept, verdict, others]).to.deep.equal([1, GRANTED, 1])
        expect(await redis.get(mutex.lock)).to.equal(heir)
        expect(await redis.pttl(mutex.lock)).to.be.above(1200)
        const again = await mutex.release(holder, 1, heir, { waited: 500 })
        expect(again.slice(0, 2)).to.deep.equal([1, GRANTED])
        expect(Number(again[2])).to.be.at.least(Number(first))
      })

      it('queues the next by its age when another process has waited longer', async () => {
        const [holder, old, heir] = [alice.owner(), bob.owner(), alice.owner()]
        await mutex.acquire(holder)
        await mutex.acquire(old, { waited: 5000 })
        const [kept, verdict] = await mutex.release(holder, 1, heir, { waited: 500 })
        expect([kept, verdict]).to.deep.equal([1, QUEUED])
        expect(await redis.get(mutex.lock)).to.equal(old)
        expect(await mutex.queued()).to.deep.equal([heir])
      })

      it('asks for the next although its own lock was lost', async () => {
        const [owner, heir] = [alice.owner(), alice.owner()]
        const reply = await mutex.release(owner, 1, heir)
        expect(reply.slice(0, 2)).to.deep.equal([0, GRANTED])
      })
    })

    describe('renew', () => {
      it('extends the lease and reserves more tokens', async () => {
        const owner = alice.owner()
        const [, first, last] = await mutex.acquire(owner, { lease: 1000 })
        const [kept, reserved, others] = await mutex.renew(owner, 8000, Number(last))
        expect([kept, others]).to.deep.equal([1, 0])
        expect(Number(reserved)).to.equal(Number(first) + 1999)
        expect(await redis.pttl(mutex.lock)).to.be.above(7000)
      })

      it('never shortens a lease: of two renewals the earlier may come last', async () => {
        const owner = alice.owner()
        await mutex.acquire(owner, { lease: 5000 })
        await mutex.renew(owner, 100)
        expect(await redis.pttl(mutex.lock)).to.be.above(4000)
      })

      it('never makes a lock, and leaves another’s alone', async () => {
        const [owner, other] = [alice.owner(), bob.owner()]
        expect(await mutex.renew(owner, 1000)).to.deep.equal([0])
        expect(await redis.exists(mutex.lock)).to.equal(0)
        await mutex.acquire(other, { lease: 1000 })
        expect(await mutex.renew(owner, 8000)).to.deep.equal([0])
        expect(await redis.pttl(mutex.lock)).to.be.within(1, 1000)
      })

      it('tells whether others wait', async () => {
        const owner = alice.owner()
        await mutex.acquire(owner)
        await mutex.acquire(bob.owner())
        expect((await mutex.renew(owner, 5000))[2]).to.equal(1)
      })
    })

    describe('cancel', () => {
      it('leaves the queue', async () => {
        await mutex.acquire(alice.owner())
        const waiter = bob.owner()
        await mutex.acquire(waiter)
        expect(await mutex.cancel(waiter)).to.deep.equal([0])
        expect(await mutex.queued()).to.deep.equal([])
      })

      it('passes on what was granted meanwhile, and does so once', async () => {
        const [gone, waiter] = [alice.owner(), bob.owner()]
        await mutex.acquire(gone)
        await mutex.acquire(waiter)
        expect(await mutex.cancel(gone)).to.deep.equal([1])
        expect(await mutex.cancel(gone)).to.deep.equal([0])
        expect(await redis.get(mutex.lock)).to.equal(waiter)
      })
    })

    describe('several in one call', () => {
      it('gives each its own result, and one that fails harms no other', async () => {
        const names = [freshKey(), freshKey(), freshKey()].map((lock) => namesOf(lock, ''))
        await redis.rpush(names[1]![0], 'not a lock')
        const owner = alice.owner()
        const args = names.flatMap(() => [...ask(owner, {}), '1'])
        const replies = (await run(redis, 'acquire', names.flat(), args)) as Reply[]
        expect(replies.map(([verdict]) => verdict)).to.deep.equal([GRANTED, FAILED, GRANTED])
        expect(replies[1]![1]).to.match(/^WRONGTYPE/)
      })
    })

    describe('fencing tokens', () => {
      const micros = async (): Promise<number> => {
        const [seconds, rest] = await redis.time()
        return Number(seconds) * 1e6 + Number(rest)
      }

      it('rise from grant to grant: after a release, a crash, and the loss of all data', async () => {
        let last = 0
        const rise = async (used: number): Promise<string> => {
          const owner = alice.owner()
          const [verdict, first] = await mutex.acquire(owner)
          expect(verdict).to.equal(GRANTED)
          expect(Number(first)).to.be.above(last)
          last = Number(first) + used
          return owner
        }
        await mutex.release(await rise(5), last)
        await rise(999)
        await redis.del(mutex.lock)
        await rise(0)
        // Reserved tokens are a millisecond ahead of the clock at most.
        while ((await micros()) <= last);
        await redis.del(mutex.lock, mutex.fence)
        await rise(0)
        expect(Number.isSafeInteger(last)).to.equal(true)
      })

      it('rise although Redis’s clock has been put back, as long as the fence lives', async () => {
        const ahead = Date.now() * 1000 + 60_000_000
        await redis.set(mutex.fence, `${ahead}|`)
        const [, first] = await mutex.acquire(alice.owner())
        expect(Number(first)).to.equal(ahead + 1)
      })
    })

    describe('a server that is out of memory', () => {
      it('grants nothing, but takes back and passes on', async function () {
        this.timeout(30_000)
        const server = await startRedis({ args: ['--maxmemory-policy', 'noeviction'] })
        atEnd(() => server.stop())
        const full = client.create(server.port)
        const full1 = new Mutexlike(full)
        const full2 = new Mutexlike(full)
        const [holder, waiter, gone, late] = [
          alice.owner(),
          bob.owner(),
          alice.owner(),
          bob.owner(),
        ]
        await full1.acquire(holder)
        await full1.acquire(waiter)
        await full2.acquire(gone)
        await full2.acquire(late)
        await full.config('SET', 'maxmemory', '1')
        const [verdict, message] = await new Mutexlike(full).acquire(alice.owner())
        expect(verdict).to.equal(FAILED)
        expect(message).to.match(/^OOM/)
        expect(await full1.renew(holder, 5000)).to.have.lengthOf(3)
        expect(await full1.release(holder, 1)).to.deep.equal([1])
        expect(await full.get(full1.lock)).to.equal(waiter)
        expect(await full2.cancel(gone)).to.deep.equal([1])
        expect(await full.get(full2.lock)).to.equal(late)
      })
    })
  })
}
