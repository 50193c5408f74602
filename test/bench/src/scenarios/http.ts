import type { Contestant } from '../contestants/contestant.js'
import { redisSemaphore } from '../contestants/redis-semaphore.js'
import { redismutex } from '../contestants/redismutex.js'
import { redlock, redlockPolling } from '../contestants/redlock.js'
import { redlockUniversal, redlockUniversalPolling } from '../contestants/redlock-universal.js'
import { simpleRedisMutex } from '../contestants/simple-redis-mutex.js'
import { withoutLock } from '../contestants/without-lock.js'
import { Process } from '../process.js'
import type { Load, LoadResult } from '../programs/load.js'
import type { ServerRun } from '../programs/server.js'
import { callsBetween, redisUsage } from '../redis-usage.js'
import { percentile } from '../statistics.js'
import type { Ground, Ready, Scenario } from './scenario.js'

type Setting = ServerRun & Omit<Load, 'port'>

const uncontended = [withoutLock, redismutex, redisSemaphore, redlock, redlockUniversal]
const contended = [
  ...[withoutLock, redismutex, redisSemaphore, redlock, redlockPolling],
  ...[redlockUniversal, redlockUniversalPolling],
]

const names = { express: 'Express', fastify: 'Fastify' }

function scenariosOf(framework: keyof typeof names): Scenario[] {
  const scenario = (
    name: string,
    title: string,
    contestants: readonly Contestant[],
    setting: Omit<Setting, 'framework'>,
  ): Scenario => ({
    name: `${framework}-${name}`,
    title: `${names[framework]}, ${title}`,
    about:
      `One ${names[framework]} server answers POST /users/:id, each user locked; autocannon on ` +
      `${setting.connections} connections. Peers in a middleware written by hand, that gives locks ` +
      'back whatever the client does.',
    contestants: [...contestants, simpleRedisMutex],
    metrics: [
      ...(setting.work > 0
        ? (['latency99', 'requests'] as const)
        : (['requests', 'latency99'] as const)),
      ...(['latency50', 'latencyMax', 'requestCommands', 'serverCpu', 'requestRedisCpu'] as const),
    ],
    prepare: (contestant, ground) => prepare({ framework, ...setting }, contestant, ground),
  })
  return [
    scenario('10000-users', '10,000 users', uncontended, {
      work: 0,
      connections: 64,
      users: 10_000,
    }),
    scenario('one-user', 'one user', contended, { work: 0, connections: 64, users: 1 }),
    scenario('one-user-5-ms', 'one user, 5 ms of work', contended, {
      work: 5,
      connections: 16,
      users: 1,
    }),
  ]
}

export const expressScenarios: readonly Scenario[] = scenariosOf('express')
export const fastifyScenarios: readonly Scenario[] = scenariosOf('fastify')

/** How long it is not looked at the answers when the load goes on, in ms: some have waited meanwhile. */
const SETTLING = 300

async function prepare(
  { framework, work, connections, users }: Setting,
  contestant: Contestant,
  ground: Ground,
): Promise<Ready> {
  const task = { contestant: contestant.name, port: ground.port }
  const [server, client] = await Promise.all([
    Process.start({ program: 'server', ...task }),
    Process.start({ program: 'load', ...task }),
  ])
  const port = await server.call<number>('listen', { framework, work } satisfies ServerRun)
  const collect = (duration: number) => client.call<LoadResult>('collect', duration)
  await client.call('begin', { port, connections, users } satisfies Load)
  // Much longer than others: it takes some 100,000 requests until all code is compiled.
  await collect(4 * ground.warmUp)
  client.pause()
  return {
    async measure() {
      client.resume()
      await collect(SETTLING)
      const before = await redisUsage(ground.redis)
      const cpuBefore = await server.call<number>('cpu')
      const { latencies, elapsed } = await collect(ground.duration)
      const cpuAfter = await server.call<number>('cpu')
      const after = await redisUsage(ground.redis)
      client.pause()
      const requests = latencies.length
      return {
        requests: (requests / elapsed) * 1000,
        latency50: percentile(latencies, 50),
        latency99: percentile(latencies, 99),
        latencyMax: percentile(latencies, 100),
        requestCommands: callsBetween(before, after, contestant.sends) / requests,
        serverCpu: ((cpuAfter - cpuBefore) / requests) * 1000,
        requestRedisCpu: ((after.cpu - before.cpu) / requests) * 1000,
      }
    },
    async close() {
      client.resume()
      await client.end()
      await server.end()
    },
  }
}
