import { redisStore } from '@redismutex/core'
import { processConformance } from '../conformance/processes.js'
import { atEnd } from '../support/cleanup.js'
import { redisClients } from '../support/clients.js'
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
  }
})
