import { quorumStore } from '@redismutex/core'
import type { Redis } from 'ioredis'
import { leftoversOf, Masters } from '../quorum/masters.js'
import { redisClients } from '../support/clients.js'
import type { Outside } from './ground.js'
import { mutexConformance } from './mutex.js'
import { processConformance } from './processes.js'

describe('with three masters', () => {
  let masters: Masters

  before(async () => {
    masters = await Masters.start(3)
  })

  after(() => masters.stop())

  for (const library of redisClients) {
    const makeStore = (keyPrefix: string) => quorumStore(masters.clients(library), { keyPrefix })

    let clients: Redis[] = []
    const outside: Outside = {
      steal: (prefix, key) => Promise.all(outsiders().map((client) => client.del(prefix + key))),
      leftovers: (prefix) => leftoversOf(outsiders(), prefix),
    }
    /** One client of each for all of a test. */
    function outsiders(): Redis[] {
      if (clients[0]?.status !== 'ready') clients = masters.clients(library)
      return clients
    }

    const traits = { ordered: false }
    mutexConformance(`quorumStore with ${library.name}`, makeStore, outside, traits)
    processConformance(`quorumStore with ${library.name}`, makeStore, outside, traits)
  }
})
