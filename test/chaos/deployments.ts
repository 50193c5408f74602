import { setTimeout as sleep } from 'node:timers/promises'
import { startCluster } from '../support/cluster.js'
import { answer } from '../support/command.js'
import { poll } from '../support/poll.js'
import { type RedisServer, startRedis } from '../support/redis.js'
import { startSentinel } from '../support/sentinel.js'
import { type Deployment, type DeploymentName, lasting, type Trouble } from './deployment.js'
import type { Random } from './random.js'
import { flushed, freeze, killed, small, stoppedLong, stoppedShortly } from './troubles.js'

/** Starts a deployment for chaos; `keys` are the names of the locks that are going to be there. */
export function startDeployment(
  name: DeploymentName,
  keys: readonly string[],
): Promise<Deployment> {
  return { single, sentinel, cluster: () => cluster(keys), quorum }[name]()
}

async function single(): Promise<Deployment> {
  const server = await startRedis({ args: lasting })
  const servers = async () => [server]
  return {
    name: 'single',
    nodes: [server],
    troubles: [
      stoppedShortly(servers),
      stoppedLong(servers),
      killed(servers),
      flushed(servers),
      ...small(servers),
    ],
    connection: (seen) => ({ kind: 'single', port: seen[server.port] as number }),
    masters: servers,
    settled: async () => {},
    stop: () => server.stop(),
  }
}

async function quorum(): Promise<Deployment> {
  const nodes = await Promise.all([1, 2, 3].map(() => startRedis({ args: lasting })))
  const servers = async () => nodes
  return {
    name: 'quorum',
    nodes,
    troubles: [
      stoppedShortly(servers),
      stoppedLong(servers),
      stoppedLong(servers, 2),
      killed(servers),
      killed(servers, 2),
      flushed(servers),
      ...small(servers),
    ],
    connection: (seen) => ({
      kind: 'quorum',
      ports: nodes.map(({ port }) => seen[port] as number),
    }),
    masters: servers,
    settled: async () => {},
    stop: async () => {
      await Promise.all(nodes.map((node) => node.stop()))
    },
  }
}

async function sentinel(): Promise<Deployment> {
  const started = await startSentinel({ args: lasting })
  const { nodes, sentinels } = started
  const masters = async () => [await started.master()]
  const replaced = async (ruin: (master: RedisServer) => Promise<unknown>): Promise<void> => {
    const master = await started.master()
    const ruined = ruin(master)
    await started.successorOf(master)
    await ruined
    await started.rejoin(master)
    await started.settled()
  }
  const failovers: Trouble[] = [
    {
      kind: 'failover: master killed',
      weight: 1,
      loses: true,
      elects: true,
      happen: () => replaced((master) => master.kill()),
    },
    {
      // It comes back as a second master, and serves those that are still connected to it.
      kind: 'failover: master stopped',
      weight: 0.7,
      loses: true,
      elects: true,
      happen: () =>
        replaced(async (master) => {
          master.pause()
          await started.successorOf(master)
          master.resume()
          await sleep(300)
        }),
    },
    {
      kind: 'failover: asked for',
      weight: 0.7,
      loses: true,
      elects: true,
      happen: () =>
        replaced(() =>
          // Refused while they are at one, or know of no good replica.
          poll('Sentinels that agree to it', async () => {
            const { port } = sentinels[0] as RedisServer
            return (await answer(port, 'SENTINEL', 'FAILOVER', 'main')) === 'OK'
          }),
        ),
    },
    {
      kind: 'sentinel killed',
      weight: 0.5,
      loses: false,
      async happen(random) {
        const one = random.pick(sentinels)
        await one.kill()
        await sleep(random.between(100, 500))
        await one.restart()
      },
    },
  ]
  return {
    name: 'sentinel',
    nodes,
    troubles: [stoppedShortly(masters), ...failovers, flushed(masters), ...small(masters)],
    connection: (seen) => ({
      kind: 'sentinel',
      sentinels: sentinels.map(({ port }) => port),
      name: started.name,
      seen,
    }),
    masters,
    settled: () => started.settled(),
    stop: () => started.stop(),
  }
}

async function cluster(keys: readonly string[]): Promise<Deployment> {
  const started = await startCluster({ args: lasting })
  const { nodes } = started
  const masters = () => started.masters()
  /** The master of one of the keys is replaced after what befalls it, and comes back. */
  const replaced =
    (befall: (master: RedisServer, successor: () => Promise<unknown>) => Promise<unknown>) =>
    async (random: Random): Promise<void> => {
      const key = random.pick(keys)
      const master = await started.masterOf(key)
      await befall(master, () => started.successorOf(master, key))
      await started.settled()
    }
  const failovers: Trouble[] = [
    {
      kind: 'failover: master killed',
      weight: 1,
      loses: true,
      elects: true,
      happen: replaced(async (master, successor) => {
        await master.kill()
        await successor()
        await master.restart()
      }),
    },
    {
      kind: 'failover: master stopped',
      weight: 0.7,
      loses: true,
      elects: true,
      happen: replaced((master, successor) => Promise.all([freeze([master], 4000), successor()])),
    },
    {
      // Both agree, and nothing is lost. https://redis.io/docs/latest/commands/cluster-failover/
      kind: 'failover: handed over',
      weight: 1,
      loses: false,
      elects: true,
      happen: replaced(async (master, successor) => {
        await poll('a replica that takes over', async () => {
          for (const { port } of nodes) {
            const role = (await answer(port, 'ROLE')) as unknown[] | undefined
            if (role?.[0] !== 'slave' || Number(role[2]) !== master.port) continue
            if ((await answer(port, 'CLUSTER', 'FAILOVER')) === 'OK') return true
          }
          return false
        })
        await successor()
      }),
    },
    {
      kind: 'slot moved',
      weight: 1.5,
      loses: false,
      async happen(random) {
        const key = random.pick(keys)
        const from = await started.masterOf(key)
        const others = (await started.masters()).filter((master) => master !== from)
        await started.migrate(key, random.pick(others), {
          begun: () => sleep(random.between(0, 150)),
          halfway: () => sleep(random.between(0, 300)),
        })
        await started.settled()
      },
    },
  ]
  return {
    name: 'cluster',
    nodes,
    troubles: [stoppedShortly(masters), ...failovers, flushed(masters), ...small(masters)],
    connection: (seen) => ({ kind: 'cluster', nodes: Object.values(seen), seen }),
    masters,
    settled: () => started.settled(),
    stop: () => started.stop(),
  }
}
