import { setTimeout as sleep } from 'node:timers/promises'
import { answer } from '../support/command.js'
import type { RedisServer } from '../support/redis.js'
import type { Trouble } from './deployment.js'
import type { Random } from './random.js'

type Servers = () => Promise<readonly RedisServer[]>

/** What can happen to servers one by one, whatever they are together. */

/** One server is frozen, for less than it takes to be given up. */
export const stoppedShortly = (servers: Servers): Trouble => ({
  kind: 'server stopped shortly',
  weight: 2,
  loses: false,
  async happen(random) {
    await freeze([random.pick(await servers())], random.between(30, 250))
  },
})

/** `count` servers are frozen for longer than a lease. */
export const stoppedLong = (servers: Servers, count = 1): Trouble => ({
  kind: count === 1 ? 'server stopped beyond the lease' : `${count} servers stopped`,
  weight: 1,
  loses: false,
  async happen(random, { lease }) {
    await freeze(some(await servers(), count, random), lease * random.between(1.1, 2))
  },
})

/** `count` servers are killed, and come back with what they had. */
export const killed = (servers: Servers, count = 1): Trouble => ({
  kind: count === 1 ? 'server killed' : `${count} servers killed`,
  weight: 2,
  loses: false,
  async happen(random) {
    const those = some(await servers(), count, random)
    await Promise.all(those.map((server) => server.kill()))
    await sleep(random.between(0, 800))
    await Promise.all(those.map((server) => server.restart()))
  },
})

/** A server forgets all. */
export const flushed = (servers: Servers): Trouble => ({
  kind: 'data flushed',
  weight: 0.5,
  loses: true,
  async happen(random) {
    await answer(random.pick(await servers()).port, 'FLUSHALL')
  },
})

/** What a server does at once, and clients have to cope with. */
export const small = (servers: Servers): Trouble[] =>
  (
    [
      ['scripts flushed', 'SCRIPT', 'FLUSH'],
      ['subscribers killed', 'CLIENT', 'KILL', 'TYPE', 'pubsub'],
      ['connections killed', 'CLIENT', 'KILL', 'TYPE', 'normal'],
    ] as const
  ).map(([kind, name, ...args]) => ({
    kind,
    weight: 1,
    loses: false,
    async happen(random) {
      await answer(random.pick(await servers()).port, name, ...args)
    },
  }))

export async function freeze(servers: readonly RedisServer[], ms: number): Promise<void> {
  for (const server of servers) server.pause()
  await sleep(ms)
  for (const server of servers) server.resume()
}

function some(servers: readonly RedisServer[], count: number, random: Random): RedisServer[] {
  const left = [...servers]
  return Array.from({ length: count }, () => {
    const one = random.pick(left)
    left.splice(left.indexOf(one), 1)
    return one
  })
}
