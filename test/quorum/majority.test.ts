import {
  BlockTimeExceedError,
  MutexExpiredError,
  MutexLostError,
  MutexStoreError,
  MutexUnlockError,
} from '@redismutex/core'
import { expect } from 'chai'
import type { Redis } from 'ioredis'
import { aborted, range, rejection, until } from '../conformance/ground.js'
import { freshKey } from '../support/redis.js'
import { clientsOf, leftoversOf, Masters, mutexOn, votes } from './masters.js'

const options = { blockTime: 8000, delay: 100, expiry: 20_000, lease: 6000, storeTimeout: 1000 }

for (const count of [3, 5]) {
  const minority = (count - 1) / 2
  const majority = minority + 1

  describe(`a quorum of ${count} masters`, () => {
    let masters: Masters
    let clients: Redis[]
    let key: string

    before(async () => {
      masters = await Masters.start(count)
    })

    after(() => masters.stop())

    beforeEach(async () => {
      await masters.renew()
      clients = masters.clients()
      key = freshKey()
    })

    async function kill(which: number[]): Promise<void> {
      await Promise.all(which.map((index) => masters.servers[index]?.kill()))
    }

    async function restart(which: number[]): Promise<void> {
      await Promise.all(which.map((index) => masters.servers[index]?.restart()))
    }

    it('is asked for its votes, and gives them back', async () => {
      const lock = await mutexOn(clients, options).acquireLock(key)
      await until(async () => (await votes(clients, key)).every((owner) => owner === lock.value))
      await lock.release()
      await until(async () => (await leftoversOf(clients, key)).length === 0)
    })

    it(`works while ${minority} are down from the beginning`, async () => {
      await kill(range(minority))
      const mutex = mutexOn(masters.clients(), options)
      const lazy = mutexOn(masters.clients(undefined, { lazyConnect: true }), options)
      const lock = await mutex.acquireLock(key)
      expect(await lazy.tryAcquire(key)).to.equal(null)
      const waiter = lazy.acquireLock(key)
      await lock.release()
      await (await waiter).release()
    })

    it(`fails when ${majority} are down, and works when enough are back`, async () => {
      const mutex = mutexOn(clients, options)
      await mutex.runExclusive(freshKey(), () => {})
      await kill(range(majority))
      const began = performance.now()
      const errors = await Promise.all(range(3).map(() => rejection(mutex.acquireLock(key))))
      for (const error of errors) {
        expect(error).to.be.instanceOf(MutexStoreError).with.property('key', key)
        expect(error).to.have.property('message').that.includes(`${majority} of ${count} masters`)
        expect(error).to.have.property('cause').that.is.instanceOf(AggregateError)
      }
      // One storeTimeout for all, and no blockTime.
      expect(performance.now() - began).to.be.below(options.blockTime / 2)
      await restart([0])
      await until(async () => {
        const lock = await mutex.acquireLock(key).catch(() => null)
        await lock?.release()
        return lock !== null
      })
      await restart(range(majority).slice(1))
      await until(async () => (await leftoversOf(masters.clients(), key)).length === 0)
    })

    it('goes on while one after the other restarts without its data', async () => {
      const mutex = mutexOn(clients, { ...options, expiry: Number.POSITIVE_INFINITY, lease: 600 })
      const lock = await mutex.acquireLock(key)
      const direct = masters.clients()
      for (const index of range(count)) {
        await restart([index])
        // Its vote is asked for again when the lease is renewed.
        await until(async () => (await votes(direct, key))[index] === lock.value)
      }
      expect(lock.signal.aborted).to.equal(false)
      await lock.release()
      await until(async () => (await leftoversOf(direct, key)).length === 0)
    })

    it('keeps a lock that a minority has forgotten', async () => {
      const lock = await mutexOn(clients, options).acquireLock(key)
      await until(async () => (await votes(clients, key)).every((owner) => owner !== null))
      await Promise.all(clients.slice(0, minority).map((client) => client.flushall()))
      const other = mutexOn(masters.clients(), options)
      expect(await other.tryAcquire(key)).to.equal(null)
      await lock.release()
      await (await other.acquireLock(key)).release()
    })

    it('tells the holder when a majority has forgotten', async () => {
      const mutex = mutexOn(clients, { ...options, expiry: Number.POSITIVE_INFINITY, lease: 600 })
      const lock = await mutex.acquireLock(key)
      await until(async () => (await votes(clients, key)).every((owner) => owner !== null))
      await Promise.all(clients.slice(0, majority).map((client) => client.flushall()))
      expect(await aborted(lock.signal)).to.be.instanceOf(MutexLostError)
      await rejection(lock.release())
      await until(async () => (await leftoversOf(clients, key)).length === 0)
    })

    it('says at a release that a majority had forgotten', async () => {
      const lock = await mutexOn(clients, options).acquireLock(key)
      await until(async () => (await votes(clients, key)).every((owner) => owner !== null))
      await Promise.all(clients.slice(0, majority).map((client) => client.flushall()))
      expect(await rejection(lock.release())).to.be.instanceOf(MutexUnlockError)
      await until(async () => (await leftoversOf(clients, key)).length === 0)
    })

    it('says at a release that a majority can not be asked', async () => {
      const mutex = mutexOn(clients, { ...options, storeTimeout: 300 })
      const lock = await mutex.acquireLock(key)
      await kill(range(majority))
      expect(await rejection(lock.release())).to.be.instanceOf(MutexStoreError)
      await restart(range(majority))
      await until(async () => (await leftoversOf(masters.clients(), key)).length === 0)
    })

    it('aborts the signal at the end of the lease when a majority can not be asked', async () => {
      const mutex = mutexOn(clients, { ...options, expiry: Number.POSITIVE_INFINITY, lease: 500 })
      const lock = await mutex.acquireLock(key)
      await kill(range(majority))
      expect(await aborted(lock.signal)).to.be.instanceOf(MutexLostError)
      expect(lock.signal.reason).not.to.be.instanceOf(MutexExpiredError)
      await rejection(lock.release())
    })

    it('does not mind a minority that somebody else holds', async () => {
      for (const client of clients.slice(0, minority)) await client.set(`mutex:${key}`, 'foreign')
      const mutex = mutexOn(clients, options)
      const lock = await mutex.acquireLock(key)
      await lock.release()
      const owners = await votes(clients, key)
      expect(owners).to.deep.equal(range(count).map((n) => (n < minority ? 'foreign' : null)))
    })

    it('waits for a majority that somebody else holds', async () => {
      for (const client of clients.slice(0, majority)) await client.set(`mutex:${key}`, 'foreign')
      const mutex = mutexOn(clients, options)
      const tooLong = rejection(mutex.acquireLock(key, { blockTime: 250 }))
      expect(await tooLong).to.be.instanceOf(BlockTimeExceedError)
      expect(await mutex.tryAcquire(key)).to.equal(null)
      const waiter = mutex.acquireLock(key)
      await clients[0]?.del(`mutex:${key}`)
      await (await waiter).release()
    })

    it('gets a lock when it expires at a majority, long before it would ask by itself', async () => {
      for (const client of clients) await client.set(`mutex:${key}`, 'foreign', 'PX', 700)
      const mutex = mutexOn(clients, {
        ...options,
        blockTime: 40_000,
        delay: 30_000,
        expiry: 50_000,
      })
      const lock = await mutex.acquireLock(key)
      expect(lock.waited).to.be.below(15_000)
      await lock.release()
    })

    it('lets one in at a time whoever is down meanwhile', async () => {
      const mutexes = range(4).map(() => mutexOn(clientsOf(masters.servers), options))
      let inside = 0
      let most = 0
      let entered = 0
      const visits = mutexes.map(async (mutex) => {
        for (const _ of range(8)) {
          await mutex.runExclusive(key, async () => {
            most = Math.max(most, ++inside)
            entered++
            await new Promise((resolve) => setTimeout(resolve, 10))
            inside--
          })
        }
      })
      const faults = async () => {
        for (const index of range(count)) {
          masters.servers[index]?.pause()
          await new Promise((resolve) => setTimeout(resolve, 60))
          masters.servers[index]?.resume()
        }
      }
      await Promise.all([...visits, faults()])
      expect({ most, entered }).to.deep.equal({ most: 1, entered: 32 })
    })
  })
}
