import { Redis, type RedisOptions } from 'ioredis'
import { Redis as Redis5, type RedisOptions as Redis5Options } from 'ioredis5'
import { atEnd } from './cleanup.js'

export type ClientOptions = Omit<RedisOptions, 'replyMapping'>

export interface RedisClient {
  readonly name: string
  /** A client of the server on this port, disconnected at the end of the test. */
  create(port: number, options?: ClientOptions): Redis
}

/** The clients that are supported, typed as the newest: what is tested of them is the same. */
export const redisClients: readonly RedisClient[] = [
  { name: 'ioredis 6', create: (port, options) => tracked(new Redis(at(port, options))) },
  {
    name: 'ioredis 5.4',
    create: (port, options) =>
      tracked(new Redis5(at(port, options) as object as Redis5Options) as unknown as Redis),
  },
]

function at(port: number, options: ClientOptions = {}): ClientOptions {
  return { host: '127.0.0.1', port, ...options }
}

function tracked(client: Redis): Redis {
  // A test that is about connection errors adds a listener of its own.
  client.on('error', () => {})
  atEnd(() => disconnected(client))
  return client
}

async function disconnected(client: Redis): Promise<void> {
  // A client that is about to connect again tells no end.
  const tells = client.status !== 'end' && client.status !== 'reconnecting'
  const ended = tells && new Promise((resolve) => client.once('end', resolve))
  client.disconnect()
  // It waits for the other side to close, which a frozen server never does.
  client.stream?.destroy()
  await ended
}
