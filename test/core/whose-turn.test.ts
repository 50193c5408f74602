import { randomBytes } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Mutex, RedisMutex, type RedisMutexOptions } from '@redismutex/core'
import { expect } from 'chai'
import type { Redis } from 'ioredis'
import { namesOf } from '../../packages/core/src/stores/redis/names.js'
import { scripts, type Verb } from '../../packages/core/src/stores/redis/scripts.js'
import { range, until } from '../conformance/ground.js'
import { Wire } from '../faults/wire.js'
import { Mutexlike } from '../protocol/redis-state.js'
import { atEnd } from '../support/cleanup.js'
import { redisClients } from '../support/clients.js'
import { freshKey, type RedisServer, startRedis } from '../support/redis.js'
import { Tap } from './tap.js'

/** They ask once, and are told. */
const patient = { blockTime: 15_000, delay: 12_000, expiry: 20_000, lease: 20_000 }

/** Longer than the slice for which a process may go on by itself, in ms. */
const LONG = 6

/**
 * How far apart those come whose ages decide, in ms. Time that an ask spends on its way makes its caller
 * look younger: no less than a busy machine may stand still just then.
 */
const APART = 500

for (const client of redisClients) {
  describe(`whose turn it is when other processes wait, by way of ${client.name}`, () => {
    let server: RedisServer
    let redis: Redis
    let tap: Tap
    let key: string
    let order: string[]

    // A server of its own, so that nobody else's commands are counted.
    before(async () => {
      server = await startRedis()
    })
    after(() => server.stop())

    beforeEach(async () => {
      redis = client.create(server.port)
      tap = await Tap.open(client.create(server.port), server.port)
      key = freshKey()
      order = []
    })

    /** Another process, as far as Redis can tell. */
    function create(more?: RedisMutexOptions, connection = client.create(server.port)): RedisMutex {
      const mutex = new RedisMutex(connection, { ...patient, ...more })
      atEnd(() => mutex.close())
      return mutex
    }

    /** From now on it is told at once of all that concerns it, and has no need to ask again. */
    async function listens(mutex: RedisMutex): Promise<RedisMutex> {
      const other = freshKey()
      const lock = await create().acquireLock(other)
      const waiter = mutex.acquireLock(other)
      await tap.told('subscribe')
      await lock.release()
      await (await waiter).release()
      await tap.take()
      return mutex
    }

    const take = (mutex: Mutex, who: string, hold: () => Promise<unknown> = () => sleep(LONG)) =>
      mutex.runExclusive(key, async () => {
        order.push(who)
        await hold()
      })

    const queued = (count: number) =>
      until(async () => (await redis.zcard(namesOf(`mutex:${key}`, '').queue)) === count)

    /** What Redis has said by now has been read. */
    async function caughtUp(): Promise<void> {
      await redis.ping()
      for (const _ of range(3)) await new Promise((resolve) => setImmediate(resolve))
    }

    const countOf = (verb: Verb, calls: string[][]) =>
      calls.filter(([, sha, text]) => sha === scripts[verb].sha || text === scripts[verb].text)
        .length

    it('those who have waited for longer than anybody elsewhere go first, without a command', async () => {
      const [here, there] = [await listens(create()), await listens(create())]
      const holder = await create().acquireLock(key)
      const all = range(4).map((n) => take(here, `here ${n}`))
      await queued(1)
      await sleep(APART)
      all.push(take(there, 'there'))
      await queued(2)
      await sleep(APART)
      all.push(take(here, 'here at last'))
      await tap.take()
      await holder.release()
      await Promise.all(all)
      expect(order).to.deep.equal([...range(4).map((n) => `here ${n}`), 'there', 'here at last'])
      // The first holder's, one of each process when the other one's turn comes, and the last.
      expect(countOf('release', await tap.take())).to.equal(4)
    })

    /** Asks at once, like one who has waited for so long (ms); when its turn comes, it gives the lock back. */
    async function ask(who: string, waited: number, connection: Redis): Promise<void> {
      const terms = { waited, blockTime: 20_000, claim: 5000 }
      const owner = `${randomBytes(16).toString('base64url')}|1`
      const [asking, own] = [connection, redis].map((one) => new Mutexlike(one, `mutex:${key}`))
      expect(await asking?.acquire(owner, terms)).to.include({ verdict: 'queued' })
      await until(async () => (await redis.get(`mutex:${key}`)) === owner)
      order.push(who)
      await own?.release(owner, undefined, undefined, terms)
    }

    /** It holds, with one more in its line, and there is somebody younger. Gives the turns of all, and an end. */
    async function underway(here: RedisMutex, younger: () => Promise<void>) {
      const holder = await create().acquireLock(key)
      const gate = new EventEmitter()
      const turns = [take(here, 'here 0', () => once(gate, 'open')), take(here, 'here 1')]
      await queued(1)
      await sleep(APART)
      turns.push(younger())
      await queued(2)
      await holder.release()
      await until(() => order.length === 1)
      await caughtUp()
      const finish = async () => {
        gate.emit('open')
        await Promise.all(turns)
      }
      return { turns, finish }
    }

    it('Redis is asked once others have been heard of, who may be older', async () => {
      const [here, there] = [await listens(create()), await listens(create())]
      const { turns, finish } = await underway(here, () => take(there, 'there'))
      turns.push(ask('late', 9000, redis))
      await queued(2)
      await caughtUp()
      await finish()
      expect(order).to.deep.equal(['here 0', 'late', 'here 1', 'there'])
    })

    for (const [what, isContended] of [
      ['a first', false],
      ['another', true],
    ] as const) {
      it(`Redis is asked if others were heard of before the reply that gave ${what} lock`, async () => {
        const connection = client.create(server.port)
        const wire = new Wire(connection)
        const here = await listens(create({}, connection))
        const gate = new EventEmitter()
        const turns: Promise<void>[] = []
        const expected = ['here 0', 'late', 'here 1']
        if (isContended) {
          turns.push(take(here, 'here', () => once(gate, 'open')))
          await until(() => order.length === 1)
        }
        const line = () => turns.push(take(here, 'here 0'), take(here, 'here 1'))
        if (isContended) {
          line()
          await sleep(APART)
          turns.push(ask('there', 0, redis))
          await queued(1)
          await caughtUp()
          expected.unshift('here')
          expected.push('there')
        }
        const before = await redis.get(`mutex:${key}`)
        wire.keep('replies')
        if (isContended) gate.emit('open')
        else line()
        await until(async () => (await redis.get(`mutex:${key}`)) !== before)
        turns.push(ask('late', 9000, redis))
        await queued(isContended ? 2 : 1)
        await caughtUp()
        wire.pass()
        await Promise.all(turns)
        expect(order).to.deep.equal(expected)
      })
    }

    it('Redis is asked once a renewal tells of an older one, of whom nothing was heard', async () => {
      const [here, there] = [await listens(create({ lease: 3000 })), await listens(create())]
      const { turns, finish } = await underway(here, () => take(there, 'there'))
      await redis.call('ACL', 'SETUSER', 'quiet', 'on', 'nopass', '~*', '+@all', 'resetchannels')
      const quiet = client.create(server.port, { username: 'quiet', password: 'x' })
      turns.push(ask('late', 9000, quiet))
      await queued(2)
      await tap.take()
      await until(async () => countOf('renew', await tap.take()) > 0)
      await caughtUp()
      await finish()
      expect(order).to.deep.equal(['here 0', 'late', 'here 1', 'there'])
    })

    it('Redis is asked if others might not have been heard of', async () => {
      const here = await listens(create())
      const { turns, finish } = await underway(here, () => ask('there', 0, redis))
      // In one go, so that nobody listens.
      const killed = redis.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
      turns.push(ask('late', 9000, redis))
      await killed
      await until(() => here.store.listeningSince === Number.POSITIVE_INFINITY)
      await until(() => here.store.listeningSince < Number.POSITIVE_INFINITY)
      await finish()
      expect(order).to.deep.equal(['here 0', 'late', 'here 1', 'there'])
    })
  })
}
