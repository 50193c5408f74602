import { quorumStore, redisStore, type Store } from '@redismutex/core'
import { Cluster, Redis } from 'ioredis'
import type { ClientOptions } from '../support/clients.js'

/** How a client gets to a deployment. */
export type Connection =
  | { readonly kind: 'single'; readonly port: number }
  | {
      readonly kind: 'sentinel'
      readonly sentinels: readonly number[]
      readonly name: string
      readonly seen: Seen
    }
  | { readonly kind: 'cluster'; readonly nodes: readonly number[]; readonly seen: Seen }
  | { readonly kind: 'quorum'; readonly ports: readonly number[] }

/** By a server's own port, the one by which it is reached. */
export type Seen = Readonly<Record<number, number>>

/** Comes back soon after a fault. */
const patient: ClientOptions = {
  retryStrategy: () => 50,
  connectTimeout: 1000,
  reconnectOnError: (error) => error.message.startsWith('READONLY'),
}

const local = (port: number): { host: string; port: number } => ({ host: '127.0.0.1', port })

const natMap = (seen: Seen): Record<string, { host: string; port: number }> =>
  Object.fromEntries(Object.entries(seen).map(([own, other]) => [`127.0.0.1:${own}`, local(other)]))

/** The clients that a store needs, to be ended by whoever asked for them. */
export function clientsOf(connection: Connection): (Redis | Cluster)[] {
  const clients = create(connection)
  for (const client of clients) client.on('error', () => {})
  return clients
}

function create(connection: Connection): (Redis | Cluster)[] {
  switch (connection.kind) {
    case 'single':
      return [new Redis({ ...local(connection.port), ...patient })]
    case 'sentinel': {
      const { sentinels, name, seen } = connection
      return [
        new Redis({
          sentinels: sentinels.map(local),
          name,
          updateSentinels: false,
          natMap: natMap(seen),
          sentinelRetryStrategy: () => 50,
          ...patient,
        }),
      ]
    }
    case 'cluster': {
      const { nodes, seen } = connection
      const cluster = new Cluster(nodes.map(local), {
        natMap: natMap(seen),
        clusterRetryStrategy: () => 50,
        retryDelayOnFailover: 200,
        slotsRefreshTimeout: 1000,
        redisOptions: { connectTimeout: 1000 },
      })
      cluster.on('+node', heedAsking)
      return [cluster]
    }
    case 'quorum':
      return connection.ports.map((port) => new Redis({ ...local(port), ...patient }))
  }
}

/**
 * ioredis 6.0 does not look at what becomes of the ASKING that it sends before a command to a slot that
 * moves: if the connection breaks then, the rejection ends the process.
 */
function heedAsking(node: Redis): void {
  const { asking } = node
  node.asking = () => {
    const asked = asking.call(node)
    asked.catch(() => {})
    return asked
  }
}

export function storeOf(
  connection: Connection,
  clients: readonly (Redis | Cluster)[],
  keyPrefix: string,
): Store {
  const [first] = clients as [Redis | Cluster]
  return connection.kind === 'quorum'
    ? quorumStore(clients, { keyPrefix })
    : redisStore(first, { keyPrefix })
}
