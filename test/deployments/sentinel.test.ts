import { RedisMutex, redisStore } from '@redismutex/core'
import { expect } from 'chai'
import { processConformance } from '../conformance/processes.js'
import { atEnd } from '../support/cleanup.js'
import { redisClients } from '../support/clients.js'
import { answer } from '../support/command.js'
import { freshKey } from '../support/redis.js'
import { type SentinelDeployment, startSentinel } from '../support/sentinel.js'
import { failover } from './failover.js'
import { outsideOf } from './outside.js'

describe('on Sentinel', () => {
  let sentinel: SentinelDeployment

  before(async function () {
    this.timeout(60_000)
    sentinel = await startSentinel()
    atEnd(() => sentinel.stop())
  })

  for (const client of redisClients) {
    const create = () =>
      client.createSentinel(
        sentinel.sentinels.map(({ port }) => port),
        sentinel.name,
      )

    processConformance(
      `Sentinel with ${client.name}`,
      (keyPrefix) => redisStore(create(), { keyPrefix }),
      outsideOf(create, (redis) => [redis]),
    )

    failover(client.name, create, () => ({
      nodes: sentinel.nodes,
      masterOf: () => sentinel.master(),
      successorOf: (old) => sentinel.successorOf(old),
      async rejoin(old) {
        await sentinel.rejoin(old)
        await sentinel.settled()
      },
    }))

    it(`a lock that all replicas have survives a failover, with ${client.name}`, async function () {
      this.timeout(60_000)
      const options = { blockTime: 50_000, expiry: 60_000, lease: 50_000, storeTimeout: 20_000 }
      const waitReplicas = { count: 2, timeout: 2000 }
      const [mutex, other] = [{ ...options, waitReplicas }, options].map((all) => {
        const created = new RedisMutex(create(), all)
        atEnd(() => created.close())
        return created
      }) as [RedisMutex, RedisMutex]
      const key = freshKey()
      const lock = await mutex.acquireLock(key)
      const old = await sentinel.master()
      await old.kill()
      const successor = await sentinel.successorOf(old)
      expect(await answer(successor.port, 'GET', `mutex:${key}`)).to.equal(lock.value)
      expect(await other.tryAcquire(key)).to.equal(null)
      const waiter = other.acquireLock(key)
      await lock.release()
      await (await waiter).release()
      await sentinel.rejoin(old)
      await sentinel.settled()
      // The connection that waits has found the new master too.
      await mutex.runExclusive(key, () => {})
    })
  }
})
