import { setTimeout as sleep } from 'node:timers/promises'
import {
  BlockTimeExceedError,
  type Lock,
  MutexClosedError,
  MutexStoreError,
} from '@redismutex/core'
import { expect } from 'chai'
import type { Redis } from 'ioredis'
import { freight } from '../../packages/core/src/stores/quorum/master.js'
import { range, rejection, until } from '../conformance/ground.js'
import { giveUpNext, loseNext } from '../faults/wire.js'
import type { TcpProxy } from '../support/proxy.js'
import { freshKey } from '../support/redis.js'
import { clientsOf, leftoversOf, Masters, mutexOn, votes } from './masters.js'

// Longer than a test may take: who waits for an answer that does not come would fail it.
const options = {
  blockTime: 50_000,
  delay: 100,
  expiry: 70_000,
  lease: 60_000,
  storeTimeout: 40_000,
}

describe('when the network or a master of three fails', () => {
  let masters: Masters
  let direct: Redis[]
  let proxies: [TcpProxy, TcpProxy, TcpProxy]
  let clients: Redis[]
  let key: string

  before(async () => {
    masters = await Masters.start(3)
  })

  after(() => masters.stop())

  beforeEach(async () => {
    await masters.renew()
    direct = masters.clients()
    proxies = (await masters.proxies()) as typeof proxies
    clients = clientsOf(proxies)
    key = freshKey()
    // Scripts and connections are there before anything is made to fail.
    const first = mutexOn(clients, options)
    await first.runExclusive(freshKey(), () => {})
    await first.close()
    await allAnswered(clients)
  })

  const nothingLeft = () => until(async () => (await leftoversOf(direct, key)).length === 0)
  const unanswered = (client: Redis): number =>
    (client as unknown as { commandQueue: { length: number } }).commandQueue.length

  /** A majority is enough for a lock: the last one may still be about to connect. */
  const allAnswered = (clients: Redis[]) =>
    until(() => clients.every((one) => one.status === 'ready' && unanswered(one) === 0))

  /** Counts a client's calls, and those that it has not done with. */
  function callsOf(client: Redis) {
    const calls = { made: 0, underWay: 0, most: 0 }
    const send = client.evalsha.bind(client) as (...args: unknown[]) => Promise<unknown>
    Object.assign(client, {
      evalsha: (...args: unknown[]) => {
        calls.made++
        calls.most = Math.max(calls.most, ++calls.underWay)
        return send(...args).finally(() => calls.underWay--)
      },
    })
    return calls
  }

  describe('one does not answer', () => {
    for (const direction of ['requests', 'replies'] as const) {
      it(
        `and nobody waits for it: it gets no ${direction}`.replace(
          'gets no replies',
          'is not heard',
        ),
        async () => {
          proxies[1].pause(direction)
          const mutex = mutexOn(clients, options)
          const lock = await mutex.acquireLock(key)
          const waiter = mutex.acquireLock(key)
          await lock.release()
          await (await waiter).release()
          proxies[1].resume()
          await nothingLeft()
        },
      )
    }

    it('and its late vote is taken back', async () => {
      proxies[1].pause('requests')
      const mutex = mutexOn(clients, options)
      await mutex.runExclusive(key, () => {})
      proxies[1].resume()
      await until(() => unanswered(clients[1] as Redis) === 0)
      await nothingLeft()
      await mutexOn(masters.clients(), options).runExclusive(key, () => {})
    })

    it('and its vote is taken back, however late it comes after the client has given it up', async () => {
      const last = direct[2] as Redis
      const expired = async () => /expired_keys:(\d+)/.exec(await last.info('stats'))?.[1]
      const before = await expired()
      const client = clients[2] as Redis
      // What is sent meanwhile to take it back is not understood.
      await last.script('FLUSH')
      await last.script('LOAD', freight.scripts.acquire.text)
      client.options.commandTimeout = 50
      proxies[2].pause('requests')
      const lease = 2000
      const mutex = mutexOn(clients, { storeTimeout: 1000, blockTime: 1500, lease })
      await mutex.runExclusive(key, () => {})
      await sleep(1.3 * lease)
      proxies[2].resume()
      await until(() => unanswered(client) === 0)
      await until(async () => (await last.exists(`mutex:${key}`)) === 0)
      expect(await expired()).to.equal(before)
    })

    it('and so is one that is sent again, by a client that refuses at once what is asked meanwhile', async () => {
      const terms = { enableOfflineQueue: false, maxRetriesPerRequest: null }
      const mine = clientsOf(proxies, { ...terms, retryStrategy: () => 500 })
      const [client] = mine as [Redis]
      await until(() => mine.every(({ status }) => status === 'ready'))
      const mutex = mutexOn(mine, { storeTimeout: 1000, blockTime: 1500, lease: 2000 })
      await mutex.runExclusive(freshKey(), () => {})
      const held = await mutex.with({ lease: 20_000, expiry: 25_000 }).acquireLock(`${key}:held`)
      await until(() => unanswered(client) === 0)
      client.options.commandTimeout = 300
      proxies[0].pause('requests')
      const calls = callsOf(client)
      await mutex.runExclusive(key, () => {})
      proxies[0].refuse()
      proxies[0].cut()
      await until(() => client.status === 'reconnecting')
      await until(() => calls.underWay === 0)
      delete client.options.commandTimeout
      await held.release()
      await sleep(3500)
      const [first] = direct as [Redis]
      const expired = async () => /expired_keys:(\d+)/.exec(await first.info('stats'))?.[1]
      const before = await expired()
      proxies[0].resume()
      await proxies[0].accept()
      await until(() => client.status === 'ready' && unanswered(client) === 0)
      await until(async () => (await first.exists(`mutex:${key}`)) === 0)
      expect(await expired()).to.equal(before)
    })

    it('and a process that is frozen is waited for no more than it', async () => {
      masters.servers[2]?.pause()
      try {
        const mutex = mutexOn(clients, options)
        for (const _ of range(20)) await mutex.runExclusive(key, () => {})
      } finally {
        masters.servers[2]?.resume()
      }
      await nothingLeft()
    })

    it('and nothing piles up before it', async () => {
      const mutex = mutexOn(clients, { ...options, storeTimeout: 1000 })
      const client = clients[0] as Redis
      proxies[0].pause('requests')
      // Until the first that was sent to it is given up.
      await until(async () => {
        const before = unanswered(client)
        await mutex.runExclusive(key, () => {})
        return unanswered(client) === before
      })
      const before = unanswered(client)
      expect(before).to.be.above(0)
      for (const _ of range(100)) await mutex.runExclusive(key, () => {})
      expect(unanswered(client)).to.equal(before)
      proxies[0].resume()
      await until(() => unanswered(client) === 0)
      // It is asked again, and its vote counts.
      proxies[1].pause()
      await mutex.runExclusive(key, () => {})
      proxies[1].resume()
      await nothingLeft()
    })

    it('and nothing piles up before it if the client has a time limit of its own', async () => {
      const client = clients[0] as Redis
      const calls = callsOf(client)
      client.options.commandTimeout = 50
      const mutex = mutexOn(clients, { ...options, storeTimeout: 300 })
      proxies[0].pause('requests')
      await mutex.runExclusive(key, () => {})
      await until(() => calls.underWay === 0)
      calls.most = 0
      for (const _ of range(100)) await mutex.runExclusive(key, () => {})
      await sleep(1500)
      expect(calls.most).to.equal(1)
      proxies[0].resume()
      await until(() => unanswered(client) === 0)
      await nothingLeft()
    })

    it('and a vote that is first asked for when its connection has broken is taken back once', async () => {
      const client = clients[0] as Redis
      const calls = callsOf(client)
      client.options.commandTimeout = 50
      const mutex = mutexOn(clients, { ...options, storeTimeout: 10_000 })
      proxies[0].pause('requests')
      await mutex.runExclusive(key, () => {})
      await until(() => calls.underWay === 0)
      delete client.options.commandTimeout
      const sent: unknown[] = []
      const send = client.evalsha.bind(client) as (...args: unknown[]) => Promise<unknown>
      Object.assign(client, {
        evalsha: (...args: unknown[]) => {
          sent.push(...args.flat())
          return send(...args)
        },
      })
      const times = (value: string | null) => sent.filter((arg) => arg === value).length
      // One call at a time is on its way: the other waits, or both do.
      const locks = [await mutex.acquireLock(`${key}:1`), await mutex.acquireLock(`${key}:2`)]
      const kept = locks.find((lock) => times(lock.value) === 0) as Lock
      client.stream.destroy()
      proxies[0].resume()
      await until(async () => (await direct[0]?.get(`mutex:${kept.key}`)) === kept.value)
      const { value } = kept
      expect(times(value), 'asked for now').to.equal(1)
      await kept.release()
      await sleep(1000)
      expect(times(value)).to.equal(2)
    })

    it('and nothing piles up for the next connection to it if its client has a time limit of its own', async () => {
      const client = clients[0] as Redis
      const calls = callsOf(client)
      client.options.commandTimeout = 20
      const mutex = mutexOn(clients, { ...options, storeTimeout: 300 })
      proxies[0].refuse()
      proxies[0].cut()
      await until(async () => {
        calls.made = 0
        await mutex.runExclusive(key, () => {})
        return calls.made === 0
      })
      // It tries to connect again and again meanwhile.
      for (const _ of range(50)) await mutex.runExclusive(key, () => sleep(10))
      expect(calls.made).to.equal(0)
      await proxies[0].accept()
      proxies[1].pause()
      await mutex.runExclusive(key, () => {})
      proxies[1].resume()
      await nothingLeft()
    })

    it('and no renewals pile up before it', async () => {
      const terms = { ...options, expiry: Number.POSITIVE_INFINITY, lease: 400 }
      const lock = await mutexOn(clients, terms).acquireLock(key)
      await until(async () => (await votes(direct, key)).every((vote) => vote !== null))
      proxies[0].pause('requests')
      await sleep(2000)
      expect(lock.signal.aborted).to.equal(false)
      expect(unanswered(clients[0] as Redis)).to.equal(1)
      proxies[0].resume()
      // It is renewed there again.
      await until(async () => (await votes(direct, key))[0] === lock.value)
      await sleep(600)
      expect((await votes(direct, key))[0]).to.equal(lock.value)
      await lock.release()
      await nothingLeft()
    })

    it('and many locks are renewed there by one call at a time if the client has a time limit of its own', async () => {
      const client = clients[0] as Redis
      const calls = callsOf(client)
      const terms = { ...options, expiry: Number.POSITIVE_INFINITY, lease: 2000 }
      const mutex = mutexOn(clients, terms)
      const locks = await Promise.all(range(300).map((n) => mutex.acquireLock(`${key}:${n}`)))
      await until(() => calls.underWay === 0)
      client.options.commandTimeout = 50
      proxies[0].pause('requests')
      calls.made = 0
      await until(() => calls.made > 0 && calls.underWay === 0)
      calls.most = calls.made = 0
      await until(() => calls.made > 1)
      expect(calls.most).to.equal(1)
      proxies[0].resume()
      delete client.options.commandTimeout
      expect(locks.filter(({ signal }) => signal.aborted)).to.deep.equal([])
      // They are renewed there again.
      const last = locks[299]
      await until(async () => (await direct[0]?.get(`mutex:${key}:299`)) === last?.value)
      await Promise.all(locks.map((lock) => lock.release()))
      await nothingLeft()
    })

    it('and the others’ votes are split: that is told without it', async () => {
      await direct[1]?.set(`mutex:${key}`, 'foreign')
      proxies[0].pause('requests')
      const mutex = mutexOn(clients, options)
      expect(await mutex.tryAcquire(key)).to.equal(null)
      const waiter = mutex.acquireLock(key)
      await direct[1]?.del(`mutex:${key}`)
      await (await waiter).release()
      proxies[0].resume()
      await nothingLeft()
    })

    it('for long, and is needed: it is waited for, and what was late of one try spares the next', async () => {
      await direct[2]?.set(`mutex:${key}`, 'foreign')
      await direct[1]?.set(`mutex:${key}`, 'foreign')
      proxies[0].delay(50)
      const mutex = mutexOn(clients, { ...options, delay: 20 })
      await mutex.runExclusive(freshKey(), () => {})
      await until(() => unanswered(clients[0] as Redis) === 0)
      const waiter = mutex.acquireLock(key)
      // Several tries are on their way to it at the same time.
      await until(() => unanswered(clients[0] as Redis) > 3)
      await direct[1]?.del(`mutex:${key}`)
      const lock = await waiter
      proxies[0].delay(0)
      await until(() => unanswered(clients[0] as Redis) === 0)
      expect((await votes(direct, key)).slice(0, 2)).to.deep.equal([lock.value, lock.value])
      await lock.release()
      await direct[2]?.del(`mutex:${key}`)
      await nothingLeft()
    })

    it('and when it is the one that is needed, it is waited for', async () => {
      await masters.servers[1]?.kill()
      proxies[0].pause('requests')
      const waiter = mutexOn(clients, { ...options, storeTimeout: 15_000 }).acquireLock(key)
      await until(() => unanswered(clients[0] as Redis) > 0)
      proxies[0].resume()
      await (await waiter).release()
      await masters.servers[1]?.restart()
      await nothingLeft()
    })

    it('and who comes when a majority is silent gets the lock once one of it is back', async () => {
      const mutex = mutexOn(clients, { ...options, storeTimeout: 300 })
      proxies[0].pause()
      proxies[1].pause()
      expect(await rejection(mutex.acquireLock(key))).to.be.instanceOf(MutexStoreError)
      expect(await rejection(mutex.acquireLock(key))).to.be.instanceOf(MutexStoreError)
      const patient = mutex.with({ storeTimeout: 15_000 }).acquireLock(key)
      proxies[1].resume()
      await (await patient).release()
      proxies[0].resume()
      await nothingLeft()
    })
  })

  it('a grant that took as long as its lease is none', async () => {
    for (const proxy of proxies) proxy.delay(60)
    const hasty = { blockTime: 700, delay: 20, expiry: 2000, lease: 100, storeTimeout: 500 }
    const mutex = mutexOn(clients, hasty)
    expect(await rejection(mutex.acquireLock(key))).to.be.instanceOf(BlockTimeExceedError)
    for (const proxy of proxies) proxy.delay(0)
    await (await mutexOn(clients, options).acquireLock(key)).release()
    await nothingLeft()
  })

  describe('a reply is lost, and the command sent again', () => {
    for (const which of [[0], [0, 1], [0, 1, 2]]) {
      const on = `on ${which.length} of them`

      it(`of an acquire, ${on}: the lock is had once`, async () => {
        const lost = which.map((index) => (proxies[index] as TcpProxy).dropReplies(1))
        const mutex = mutexOn(clients, options)
        const lock = await mutex.acquireLock(key)
        await Promise.all(lost)
        expect(await mutexOn(direct, options).tryAcquire(key)).to.equal(null)
        await lock.release()
        await nothingLeft()
      })

      it(`of a release, ${on}: it has happened, and is no error`, async () => {
        const lock = await mutexOn(clients, options).acquireLock(key)
        await until(async () => (await votes(direct, key)).every((vote) => vote !== null))
        const lost = which.map((index) => (proxies[index] as TcpProxy).dropReplies(1))
        await lock.release()
        await Promise.all(lost)
        await nothingLeft()
      })

      it(`of a renewal, ${on}: the lock stays`, async () => {
        const terms = { ...options, expiry: Number.POSITIVE_INFINITY, lease: 1200 }
        const lock = await mutexOn(clients, terms).acquireLock(key)
        await until(async () => (await votes(direct, key)).every((vote) => vote !== null))
        const lost = which.map((index) => (proxies[index] as TcpProxy).dropReplies(1))
        await Promise.all(lost)
        await sleep(1300)
        expect(lock.signal.aborted).to.equal(false)
        await lock.release()
        await nothingLeft()
      })
    }
  })

  it('an ask that comes to two of them once more, after the release: nobody waits for a whole lease', async () => {
    const mutex = mutexOn(clients, options)
    const { sha } = freight.scripts.acquire
    const again = [0, 1].map((n) => loseNext(clients[n] as Redis, sha, proxies[n] as TcpProxy))
    await (await mutex.acquireLock(key)).release()
    await nothingLeft()
    const replies = await Promise.all(again.map((land, n) => land(direct[n] as Redis)))
    for (const reply of replies) expect(reply, 'the vote').to.have.property('0', 1)
    const lock = await mutexOn(direct, options).acquireLock(key, { blockTime: 5000 })
    await lock.release()
    await nothingLeft()
  })

  it('an ask that is given up before connections break, and comes to two of them once more: nobody waits for a whole lease', async () => {
    const mutex = mutexOn(clients, { ...options, storeTimeout: 500 })
    const { sha } = freight.scripts.acquire
    const again = [0, 1].map((n) => loseNext(clients[n] as Redis, sha, proxies[n] as TcpProxy, 900))
    expect(await rejection(mutex.acquireLock(key))).to.be.instanceOf(MutexStoreError)
    await until(() => mutex.runExclusive(`${key}:next`, () => true).catch(() => false))
    await nothingLeft()
    const replies = await Promise.all(again.map((land, n) => land(direct[n] as Redis)))
    for (const reply of replies) expect(reply, 'the vote').to.have.property('0', 1)
    const lock = await mutexOn(direct, options).acquireLock(key, { blockTime: 5000 })
    await lock.release()
  })

  it('clients of Clusters give up what lands all the same: it is taken back, and they are asked on', async () => {
    for (const client of clients) Object.assign(client, { isCluster: true })
    const lands = clients.map((client) => giveUpNext(client))
    const mutex = mutexOn(clients, options)
    expect(await rejection(mutex.acquireLock(key))).to.be.instanceOf(MutexStoreError)
    await mutex.runExclusive(`${key}:next`, () => {})
    for (const land of lands) await land()
    await nothingLeft()
  })

  it('a client of a Cluster gives up one that lands after another, and after the release: it is taken back', async () => {
    const slow = clients[2] as Redis
    Object.assign(slow, { isCluster: true })
    const mutex = mutexOn(clients, { ...options, lease: 6000 })
    const land = giveUpNext(slow)
    const lock = await mutex.acquireLock(key)
    // A renewal asks that master again.
    await until(async () => (await votes(direct, key))[2] === lock.value)
    await lock.release()
    await nothingLeft()
    await land()
    const began = performance.now()
    await nothingLeft()
    expect(performance.now() - began, 'not a whole lease').to.be.below(5000)
  })

  describe('a client that keeps no command, and its connection breaks,', () => {
    const forgetful = () => clientsOf(proxies, { autoResendUnfulfilledCommands: false })

    it('when its mutex has been closed: another one on it works', async () => {
      const mine = forgetful()
      const mutex = mutexOn(mine, options)
      await mutex.runExclusive(freshKey(), () => {})
      await allAnswered(mine)
      for (const proxy of proxies) proxy.pause('replies')
      const hasty = mutex.with({ storeTimeout: 300, blockTime: 5000 })
      expect(await rejection(hasty.acquireLock(key))).to.be.instanceOf(MutexStoreError)
      await mutex.close()
      for (const proxy of proxies) proxy.cut()
      for (const proxy of proxies) proxy.resume()
      await until(() => mine.every((client) => client.status !== 'ready'))
      await until(() => mine.every((client) => client.status === 'ready'))
      const short = mutexOn(mine, { ...options, blockTime: 5000, storeTimeout: 4000 })
      await short.runExclusive(freshKey(), () => {})
    })

    it('as a Cluster whose nodes connect again by themselves: it works again', async () => {
      const mine = forgetful()
      for (const client of mine) Object.assign(client, { isCluster: true, nodes: () => [client] })
      const mutex = mutexOn(mine, { ...options, blockTime: 5000, storeTimeout: 4000 })
      await mutex.runExclusive(freshKey(), () => {})
      await allAnswered(mine)
      for (const proxy of proxies) proxy.pause('replies')
      const refused = rejection(mutex.acquireLock(key))
      await until(async () => (await votes(direct, key)).every((vote) => vote !== null))
      for (const proxy of proxies) proxy.cut()
      for (const proxy of proxies) proxy.resume()
      expect(await refused).to.be.instanceOf(MutexStoreError)
      await mutex.runExclusive(freshKey(), () => {})
      await nothingLeft()
    })
  })

  it('a release that takes longer than the lease is in time all the same', async () => {
    const lock = await mutexOn(clients, { ...options, lease: 1000 }).acquireLock(key)
    for (const proxy of proxies) proxy.pause('requests')
    const released = lock.release()
    await until(async () => (await votes(direct, key)).every((vote) => vote === null))
    for (const proxy of proxies) proxy.resume()
    await released
  })

  it('connections are cut while it is waited for: the lock comes all the same', async () => {
    const holder = await mutexOn(direct, options).acquireLock(key)
    const waiter = mutexOn(clients, options).acquireLock(key)
    await sleep(20)
    for (const proxy of proxies) proxy.cut()
    await holder.release()
    await (await waiter).release()
    await nothingLeft()
  })

  it('scripts are flushed', async () => {
    const mutex = mutexOn(clients, options)
    const lock = await mutex.acquireLock(key)
    await Promise.all(direct.map((client) => client.script('FLUSH')))
    await lock.release()
    await Promise.all(direct.map((client) => client.script('FLUSH')))
    await mutex.runExclusive(key, () => {})
    await nothingLeft()
  })

  describe('a master refuses', () => {
    it('one: the others do', async () => {
      await direct[0]?.rpush(`mutex:${key}`, 'no string')
      await mutexOn(clients, options).runExclusive(key, () => {})
    })

    it('two: in their own words, at once', async () => {
      for (const client of direct.slice(1)) await client.rpush(`mutex:${key}`, 'no string')
      const error = await rejection(mutexOn(clients, options).acquireLock(key))
      expect(error).to.be.instanceOf(MutexStoreError)
      expect(error)
        .to.have.property('message')
        .that.matches(/^2 of 3 masters failed: .*WRONGTYPE/)
      await until(async () => (await direct[0]?.exists(`mutex:${key}`)) === 0)
    })

    it('for want of memory: votes are given back all the same', async () => {
      const lock = await mutexOn(clients, options).acquireLock(key)
      await until(async () => (await votes(direct, key)).every((vote) => vote !== null))
      for (const client of direct) await client.config('SET', 'maxmemory', 1)
      try {
        const error = await rejection(mutexOn(clients, options).acquireLock(freshKey()))
        expect(error).to.be.instanceOf(MutexStoreError)
        expect(error).to.have.property('message').that.includes('OOM')
        expect(await mutexOn(direct, options).tryAcquire(key)).to.equal(null)
        await lock.release()
        await nothingLeft()
      } finally {
        for (const client of direct) await client.config('SET', 'maxmemory', 0)
      }
    })

    it('all, since their clients are closed: at once', async () => {
      const mutex = mutexOn(clients, options)
      for (const client of clients) client.disconnect()
      expect(await rejection(mutex.acquireLock(key))).to.be.instanceOf(MutexStoreError)
    })
  })

  describe('closing', () => {
    it('takes back what is asked for and what is held', async () => {
      const holder = await mutexOn(direct, options).acquireLock(`${key}:taken`)
      const mutex = mutexOn(clients, options)
      await mutex.acquireLock(`${key}:held`)
      const waiters = [`${key}:taken`, `${key}:held`, `${key}:free`].map((name) =>
        rejection(mutex.acquireLock(name)),
      )
      await mutex.close()
      for (const error of await Promise.all(waiters)) {
        expect(error).to.be.instanceOf(MutexClosedError)
      }
      expect(await leftoversOf(direct, `${key}:held`)).to.deep.equal([])
      expect(await leftoversOf(direct, `${key}:free`)).to.deep.equal([])
      await holder.release()
      await nothingLeft()
    })

    it('does not wait for masters that do not answer, nor leave the others’ votes', async () => {
      const mutex = mutexOn(clients, options)
      await mutex.acquireLock(key)
      proxies[0].pause()
      const asking = Promise.allSettled([mutex.acquireLock(`${key}:2`)])
      await mutex.close()
      await asking
      expect(await leftoversOf(direct.slice(1), key)).to.deep.equal([])
      proxies[0].resume()
    })
  })
})
