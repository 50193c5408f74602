import { expect } from 'chai'
import type { Redis } from 'ioredis'
import { namesOf } from '../../packages/core/src/stores/redis/names.js'
import { atEnd } from '../support/cleanup.js'
import { redisClients } from '../support/clients.js'
import { freshKey, sharedRedis, startRedis } from '../support/redis.js'
import { type Answer, asked, items, Mutexlike, Peer, run } from './redis-state.js'

/** In µs. */
const YEAR = 365 * 24 * 3600 * 1e6

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
        const { verdict, token, others } = await mutex.acquire(owner, { lease: 5000 })
        expect(verdict).to.equal('granted')
        expect(others).to.equal(0)
        expect(token).to.be.at.least(Number(seconds) * 1e6 + Number(micros))
        expect(await redis.get(mutex.fence)).to.equal(String(token))
        expect(await redis.get(mutex.lock)).to.equal(owner)
        expect(await redis.pttl(mutex.lock)).to.be.within(1, 5000)
        expect(await redis.exists(mutex.queue)).to.equal(0)
      })

      it('grants again what it granted, for a full lease from then on', async () => {
        const owner = alice.owner()
        const first = await mutex.acquire(owner, { lease: 5000 })
        await redis.pexpire(mutex.lock, 100)
        const again = await mutex.acquire(owner, { lease: 5000 })
        expect(again.verdict).to.equal('granted')
        expect(again.token).to.be.above(first.token)
        expect(await redis.pttl(mutex.lock)).to.be.above(4000)
      })

      it('shortens no lease when it grants again', async () => {
        const owner = alice.owner()
        await mutex.acquire(owner, { lease: 50_000 })
        await mutex.acquire(owner, { lease: 500 })
        expect(await redis.pttl(mutex.lock)).to.be.above(40_000)
      })

      it('grants again who was promoted meanwhile, tells who else waits, and keeps no entry of it', async () => {
        const [holder, owner, other] = [alice.owner(), bob.owner(), alice.owner()]
        await mutex.acquire(holder)
        await mutex.acquire(owner, { waited: 100 })
        await mutex.acquire(other)
        await mutex.release(holder)
        // As by an ask that was sent before the grant, and came after the entry was gone.
        await redis.zadd(mutex.queue, 1, `${owner}|1000|10000`)
        const { verdict, others } = await mutex.acquire(owner)
        expect(verdict).to.equal('granted')
        // For how long they have is not looked up: as good as for ever.
        expect(others).to.be.above(YEAR)
        expect(await mutex.queued()).to.deep.equal([other])
        expect(await redis.pttl(mutex.lock)).to.be.above(4000)
      })

      it('queues when the lock is held, tells how long for, and tells the holder', async () => {
        const holder = alice.owner()
        await mutex.acquire(holder)
        const waiter = bob.owner()
        const { verdict, left } = await mutex.acquire(waiter)
        expect(verdict).to.equal('queued')
        expect(left).to.be.within(1, 5000)
        expect(await mutex.queued()).to.deep.equal([waiter])
        expect(await alice.heard()).to.deep.equal([`contended|${holder.split('|')[1]}`])
        expect(await redis.pttl(mutex.queue)).to.be.within(1, 20_000)
      })

      it('keeps the queue for as long as the most patient of those in it needs', async () => {
        await mutex.acquire(alice.owner())
        await mutex.acquire(bob.owner(), { keep: 50_000 })
        await mutex.acquire(bob.owner(), { keep: 2000 })
        expect(await redis.pttl(mutex.queue)).to.be.above(40_000)
      })

      it('does not queue a try', async () => {
        await mutex.acquire(alice.owner())
        expect((await mutex.try(bob.owner())).verdict).to.equal('refused')
        expect(await redis.exists(mutex.queue)).to.equal(0)
        expect(await alice.heard()).to.deep.equal([])
      })

      it('says of a lock without an end that it is held for ever', async () => {
        await redis.set(mutex.lock, 'a stranger')
        expect(await mutex.acquire(alice.owner())).to.include({ verdict: 'queued', left: -1 })
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

      it('does not make a waiter younger whose ask comes again late', async () => {
        await mutex.acquire(alice.owner())
        const [first, second] = [alice.owner(), bob.owner()]
        await mutex.acquire(first, { waited: 0 })
        await mutex.acquire(second, { waited: 0 })
        await mutex.acquire(first, { waited: 0 })
        expect(await mutex.queued()).to.deep.equal([first, second])
      })

      it('gives a lock whose holder vanished to the head of the queue, and not to who asks', async () => {
        await mutex.acquire(alice.owner())
        const [first, second] = [alice.owner(), bob.owner()]
        await mutex.acquire(first, { waited: 2000 })
        await redis.del(mutex.lock)
        expect((await mutex.acquire(second)).verdict).to.equal('queued')
        expect(await redis.get(mutex.lock)).to.equal(first)
        expect(await mutex.queued()).to.deep.equal([second])
        expect((await alice.heard()).at(-1)).to.match(/^grant\|/)
      })

      it('gives it to who asks if that one is the oldest', async () => {
        await mutex.acquire(alice.owner())
        const [first, second] = [alice.owner(), bob.owner()]
        await mutex.acquire(first, { waited: 2000 })
        await redis.del(mutex.lock)
        const asked = await mutex.acquire(second, { waited: 9000 })
        expect(asked.verdict).to.equal('granted')
        expect(asked.others).to.be.within(2_000_000, 8_000_000)
        expect(await mutex.queued()).to.deep.equal([first])
      })

      it('refuses a try while somebody waits for a free lock, and wakes that one', async () => {
        await mutex.acquire(alice.owner())
        const waiter = alice.owner()
        await mutex.acquire(waiter)
        await redis.del(mutex.lock)
        expect((await mutex.try(bob.owner())).verdict).to.equal('refused')
        expect(await redis.get(mutex.lock)).to.equal(waiter)
      })

      it('skips and removes those whose time to wait is over', async () => {
        await mutex.acquire(alice.owner())
        await mutex.acquire(alice.owner(), { waited: 10_001, blockTime: 10_000 })
        await redis.del(mutex.lock)
        expect((await mutex.acquire(bob.owner())).verdict).to.equal('granted')
        expect(await redis.exists(mutex.queue)).to.equal(0)
      })

      it('keeps those who wait for ever', async () => {
        await mutex.acquire(alice.owner())
        const waiter = alice.owner()
        await mutex.acquire(waiter, { waited: 1_000_000, blockTime: 0 })
        await redis.del(mutex.lock)
        expect((await mutex.acquire(bob.owner())).verdict).to.equal('queued')
        expect(await redis.get(mutex.lock)).to.equal(waiter)
      })
    })

    describe('release', () => {
      it('leaves nothing but a fence with the last token used, which expires', async () => {
        const owner = alice.owner()
        const { token } = await mutex.acquire(owner)
        expect((await mutex.release(owner, token + 3)).kept).to.equal(true)
        expect(await redis.exists(mutex.lock, mutex.queue)).to.equal(0)
        expect(await redis.get(mutex.fence)).to.equal(String(token + 3))
        expect(await redis.pttl(mutex.fence)).to.be.within(1, 10_000)
      })

      it('passes the lock to the head as a claim, which the head is told of with its age', async () => {
        const [holder, waiter, other] = [alice.owner(), bob.owner(), bob.owner()]
        const first = await mutex.acquire(holder)
        await mutex.acquire(waiter, { waited: 3000, claim: 1200 })
        await mutex.acquire(other, { waited: 1000 })
        const last = alice.owner()
        await mutex.acquire(last)
        expect((await mutex.release(holder)).kept).to.equal(true)
        expect(await redis.get(mutex.lock)).to.equal(waiter)
        expect(await redis.pttl(mutex.lock)).to.be.within(1, 1200)
        expect(await mutex.queued()).to.deep.equal([other, last])
        const [kind, token, others, age, n] = (await bob.heard()).at(-1)!.split('|')
        expect([kind, n]).to.deep.equal(['grant', waiter.split('|')[1]])
        expect(Number(others)).to.be.within(1_000_000, 7_000_000)
        expect(Number(token)).to.be.above(first.token)
        expect(Number(age)).to.be.within(3_000_000, 9_000_000)
      })

      it('touches nothing when it comes twice, even after others have got the lock', async () => {
        const [first, second] = [alice.owner(), bob.owner()]
        await mutex.acquire(first)
        expect((await mutex.release(first)).kept).to.equal(true)
        // That the second is no loss, the client knows: it comes after a break of the connection.
        expect((await mutex.release(first)).kept).to.equal(false)
        await mutex.acquire(second)
        await mutex.release(first)
        expect(await redis.get(mutex.lock)).to.equal(second)
      })

      it('touches nothing when the lock is somebody else’s, and says so', async () => {
        const [stranger, owner, waiter] = [alice.owner(), bob.owner(), alice.owner()]
        await mutex.acquire(owner)
        await mutex.acquire(waiter)
        const fence = await redis.get(mutex.fence)
        expect((await mutex.release(stranger, Number(fence) + 9)).kept).to.equal(false)
        expect(await redis.get(mutex.lock)).to.equal(owner)
        expect(await mutex.queued()).to.deep.equal([waiter])
        expect(await redis.get(mutex.fence)).to.equal(fence)
      })

      it('removes what its owner left in the queue', async () => {
        const [owner, other] = [alice.owner(), bob.owner()]
        await mutex.acquire(other)
        await mutex.acquire(owner)
        await mutex.release(owner)
        expect(await mutex.queued()).to.deep.equal([])
      })

      it('grants the next of the same process in its reply when that one is the oldest', async () => {
        const [holder, young, heir] = [alice.owner(), bob.owner(), alice.owner()]
        await mutex.acquire(holder)
        await mutex.acquire(young, { waited: 10 })
        const first = await mutex.release(holder, undefined, heir, { waited: 500 })
        expect(first.kept).to.equal(true)
        expect(first.heir?.verdict).to.equal('granted')
        expect(first.heir?.others).to.be.within(10_000, 6_010_000)
        expect(await redis.get(mutex.lock)).to.equal(heir)
        expect(await redis.pttl(mutex.lock)).to.be.above(1200)
        const again = await mutex.release(holder, undefined, heir, { waited: 500 })
        expect(again.heir?.verdict).to.equal('granted')
        expect(again.heir?.token).to.be.above(first.heir!.token)
      })

      it('queues the next by its age when another process has waited longer', async () => {
        const [holder, old, heir] = [alice.owner(), bob.owner(), alice.owner()]
        await mutex.acquire(holder)
        await mutex.acquire(old, { waited: 5000 })
        const { kept, heir: asked } = await mutex.release(holder, undefined, heir, { waited: 500 })
        expect([kept, asked?.verdict]).to.deep.equal([true, 'queued'])
        expect(await redis.get(mutex.lock)).to.equal(old)
        expect(await mutex.queued()).to.deep.equal([heir])
      })

      it('asks for the next although its own lock was lost', async () => {
        const [owner, heir] = [alice.owner(), alice.owner()]
        const { kept, heir: asked } = await mutex.release(owner, undefined, heir)
        expect([kept, asked?.verdict]).to.deep.equal([false, 'granted'])
      })
    })

    describe('renew', () => {
      it('extends the lease, and notes which tokens have been used', async () => {
        const owner = alice.owner()
        const { token } = await mutex.acquire(owner, { lease: 1000 })
        expect(await mutex.renew(owner, 8000, token + 500)).to.equal(1)
        expect(await redis.get(mutex.fence)).to.equal(String(token + 500))
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
        expect(await mutex.renew(owner, 1000)).to.equal(0)
        expect(await redis.exists(mutex.lock)).to.equal(0)
        await mutex.acquire(other, { lease: 1000 })
        expect(await mutex.renew(owner, 8000)).to.equal(0)
        expect(await redis.pttl(mutex.lock)).to.be.within(1, 1000)
      })

      it('tells for how long the first of the others has waited', async () => {
        const owner = alice.owner()
        await mutex.acquire(owner)
        await mutex.acquire(bob.owner())
        await mutex.acquire(bob.owner(), { waited: 2000 })
        expect(await mutex.renew(owner, 5000)).to.be.within(2_000_001, 8_000_000)
      })
    })

    describe('cancel', () => {
      it('leaves the queue', async () => {
        await mutex.acquire(alice.owner())
        const waiter = bob.owner()
        await mutex.acquire(waiter)
        expect(await mutex.cancel(waiter)).to.equal(false)
        expect(await mutex.queued()).to.deep.equal([])
      })

      it('frees what was granted meanwhile if nobody waits', async () => {
        const gone = bob.owner()
        await mutex.acquire(gone)
        expect(await mutex.cancel(gone)).to.equal(true)
        expect(await redis.exists(mutex.lock)).to.equal(0)
      })

      it('takes nothing from another holder', async () => {
        const [holder, waiter, gone] = [alice.owner(), alice.owner(), bob.owner()]
        for (const owner of [holder, waiter, gone]) await mutex.acquire(owner)
        expect(await mutex.cancel(gone)).to.equal(false)
        expect(await redis.get(mutex.lock)).to.equal(holder)
        expect(await mutex.queued()).to.deep.equal([waiter])
      })

      it('passes on what was granted meanwhile, and does so once', async () => {
        const [gone, waiter] = [alice.owner(), bob.owner()]
        await mutex.acquire(gone)
        await mutex.acquire(waiter)
        expect(await mutex.cancel(gone)).to.equal(true)
        expect(await mutex.cancel(gone)).to.equal(false)
        expect(await redis.get(mutex.lock)).to.equal(waiter)
      })
    })

    describe('what fails in the middle', () => {
      it('an ask: cancel gives back what it got, whatever is wrong with the queue', async () => {
        await redis.set(mutex.queue, 'not a queue')
        const owner = alice.owner()
        const { verdict, message } = await mutex.acquire(owner)
        expect([verdict, message.split(' ')[0]]).to.deep.equal(['failed', 'WRONGTYPE'])
        await mutex.cancel(owner)
        expect(await redis.exists(mutex.lock)).to.equal(0)
      })

      it('an ask for which there is no token: cancel gives the lock back', async () => {
        const [owner, waiter] = [alice.owner(), bob.owner()]
        await redis.lpush(mutex.fence, 'not a fence')
        expect((await mutex.acquire(owner)).verdict).to.equal('failed')
        expect(await mutex.acquire(waiter)).to.include({ verdict: 'queued' })
        await mutex.cancel(owner)
        expect(await redis.exists(mutex.lock)).to.equal(0)
        expect(await mutex.queued()).to.deep.equal([waiter])
        await redis.del(mutex.fence)
        expect((await mutex.acquire(waiter)).verdict).to.equal('granted')
      })
    })

    describe('several in one call', () => {
      it('gives each its own result, and one that fails harms no other', async () => {
        const names = [freshKey(), freshKey(), freshKey()].map((lock) => namesOf(lock, ''))
        await redis.rpush(names[1]!.lock, 'not a lock')
        const args = names.flatMap(() => items.acquire(alice.owner(), {}))
        const replies = ((await run(redis, 'acquire', names, args)) as Answer[]).map(asked)
        const verdicts = replies.map(({ verdict }) => verdict)
        expect(verdicts).to.deep.equal(['granted', 'failed', 'granted'])
        expect(replies[1]!.message).to.match(/^WRONGTYPE/)
        expect(replies[2]!.token).to.be.above(replies[0]!.token)
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
          const { verdict, token } = await mutex.acquire(owner)
          expect(verdict).to.equal('granted')
          expect(token).to.be.above(last)
          last = token + used
          return owner
        }
        // More than the time that goes by could bring.
        await mutex.release(await rise(60_000_000), last)
        await rise(0)
        await redis.del(mutex.lock)
        await rise(0)
        await redis.del(mutex.lock, mutex.fence)
        last = (await micros()) - 1
        await rise(0)
        expect(Number.isSafeInteger(last)).to.equal(true)
      })

      it('rise although Redis’s clock has been put back, as long as the fence lives', async () => {
        const ahead = Date.now() * 1000 + 60_000_000
        await redis.set(mutex.fence, String(ahead))
        const first = alice.owner()
        expect((await mutex.acquire(first)).token).to.equal(ahead + 1)
        await mutex.acquire(bob.owner())
        await mutex.release(first)
        expect((await bob.heard()).at(-1)).to.include(`grant|${ahead + 2}|`)
        await redis.del(mutex.lock)
        expect((await mutex.acquire(alice.owner())).token).to.equal(ahead + 3)
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
        const { verdict, message } = await new Mutexlike(full).acquire(alice.owner())
        expect(verdict).to.equal('failed')
        expect(message).to.match(/^OOM/)
        expect(await full1.renew(holder, 5000)).to.be.above(1)
        expect((await full1.release(holder)).kept).to.equal(true)
        expect(await full.get(full1.lock)).to.equal(waiter)
        expect(await full2.cancel(gone)).to.equal(true)
        expect(await full.get(full2.lock)).to.equal(late)
      })
    })
  })
}
