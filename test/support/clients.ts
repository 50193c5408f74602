import { Cluster, type ClusterOptions, Redis, type RedisOptions } from 'ioredis'
import {
  Cluster as Cluster5,
  type ClusterOptions as Cluster5Options,
  Redis as Redis5,
  type RedisOptions as Redis5Options,
} from 'ioredis5'
import {
  Redis as Valkey,
  Cluster as ValkeyCluster,
  type ClusterOptions as ValkeyClusterOptions,
  type RedisOptions as ValkeyOptions,
} from 'iovalkey'
import { atEnd } from './cleanup.js'

export type ClientOptions = Omit<RedisOptions, 'replyMapping'>

export interface RedisClient {
  readonly name: string
  /** A client of the server on this port, disconnected at the end of the test. */
  create(port: number, options?: ClientOptions): Redis
  /** A client of the master that these Sentinels know by this name. */
  createSentinel(ports: readonly number[], name: string, options?: ClientOptions): Redis
  /** A client of the Cluster that has these nodes. */
  createCluster(ports: readonly number[], options?: ClusterOptions): Cluster
}

/** The clients that are supported, typed as the newest: what is tested of them is the same. */
export const redisClients: readonly RedisClient[] = [
  supported(
    'ioredis 6',
    (options) => new Redis(options),
    (nodes, options) => new Cluster(nodes, options as object),
  ),
  supported(
    'ioredis 5.4',
    (options) => new Redis5(options as object as Redis5Options) as unknown as Redis,
    (nodes, options) =>
      new Cluster5(nodes, options as object as Cluster5Options) as unknown as Cluster,
  ),
]

/** With those that are much the same as one of them, for what may differ all the same. */
export const allClients: readonly RedisClient[] = [
  ...redisClients,
  supported(
    'iovalkey',
    (options) => new Valkey(options as object as ValkeyOptions) as unknown as Redis,
    (nodes, options) =>
      new ValkeyCluster(nodes, options as object as ValkeyClusterOptions) as unknown as Cluster,
  ),
]

type Nodes = { host: string; port: number }[]

function supported(
  name: string,
  redis: (options: ClientOptions) => Redis,
  cluster: (nodes: Nodes, options: ClusterOptions) => Cluster,
): RedisClient {
  return {
    name,
    create: (port, options) => tracked(redis({ host: '127.0.0.1', port, ...options })),
    createSentinel: (ports, name, options) =>
      tracked(redis({ ...viaSentinels(ports, name), ...options })),
    createCluster: (ports, options = {}) => {
      const client = cluster(ports.map(local), options)
      client.on('error', () => {})
      atEnd(() => ended(client))
      return client
    },
  }
}

const local = (port: number): Nodes[number] => ({ host: '127.0.0.1', port })

/** They know each other's addresses; a client is to use only those it was given. */
function viaSentinels(ports: readonly number[], name: string): ClientOptions {
  return { sentinels: ports.map(local), name, updateSentinels: false }
}

function tracked(client: Redis): Redis {
  // A test that is about connection errors adds a listener of its own.
  client.on('error', () => {})
  atEnd(() => ended(client, () => client.stream?.destroy()))
  return client
}

/** @param cut it waits for the other side to close, which a frozen server never does */
async function ended(client: Redis | Cluster, cut: () => void = () => {}): Promise<void> {
  // A client that is about to connect again tells no end.
  const tells = client.status !== 'end' && client.status !== 'reconnecting'
  const end = tells && new Promise((resolve) => client.once('end', resolve))
  client.disconnect()
  cut()
  await end
}
