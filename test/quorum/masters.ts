import { Mutex, type MutexOptions, quorumStore } from '@redismutex/core'
import type { Redis } from 'ioredis'
import { atEnd } from '../support/cleanup.js'
import { type ClientOptions, type RedisClient, redisClients } from '../support/clients.js'
import { startProxy, type TcpProxy } from '../support/proxy.js'
import { type RedisServer, startRedis } from '../support/redis.js'

const [newest] = redisClients as [RedisClient]

/** Independent servers that are asked for locks. */
export class Masters {
  readonly servers: readonly RedisServer[]

  private constructor(servers: readonly RedisServer[]) {
    this.servers = servers
  }

  static async start(count: number): Promise<Masters> {
    const starting = Array.from({ length: count }, () => startRedis())
    return new Masters(await Promise.all(starting))
  }

  /** A client of each, disconnected at the end of the test. */
  clients(library: RedisClient = newest, options?: ClientOptions): Redis[] {
    return clientsOf(this.servers, options, library)
  }

  /** Starts those that are down, and forgets everything. */
  async renew(): Promise<void> {
    await Promise.all(this.servers.map((server) => (isUp(server) ? undefined : server.restart())))
    await Promise.all(this.clients().map((client) => client.flushall()))
  }

  /** A proxy before each, stopped at the end of the test. */
  proxies(): Promise<TcpProxy[]> {
    return Promise.all(this.servers.map(({ port }) => startProxy(port)))
  }

  async stop(): Promise<void> {
    await Promise.all(this.servers.map((server) => server.stop()))
  }
}

/** A mutex over these masters, closed at the end of the test. */
export function mutexOn(clients: readonly Redis[], options: MutexOptions = {}, keyPrefix?: string) {
  const mutex = new Mutex(quorumStore(clients, { keyPrefix }), options)
  atEnd(() => mutex.close())
  return mutex
}

/** Clients of these ports, which come back soon when a server does. */
export function clientsOf(
  ports: readonly { readonly port: number }[],
  options?: ClientOptions,
  library: RedisClient = newest,
): Redis[] {
  const retryStrategy = () => 50
  return ports.map(({ port }) => library.create(port, { retryStrategy, ...options }))
}

function isUp(server: RedisServer): boolean {
  try {
    return server.pid > 0
  } catch {
    return false
  }
}

/** What clients of masters still see of these locks, but for what blocks nobody and expires. */
export async function leftoversOf(clients: readonly Redis[], pattern: string): Promise<string[]> {
  const names = await Promise.all(clients.map((client) => client.keys(`*${pattern}*`)))
  return names.flat().filter((name) => !/^redismutex:quorum-(fence|waiting):/.test(name))
}

/** Whose vote each master has given. */
export function votes(clients: readonly Redis[], key: string): Promise<(string | null)[]> {
  return Promise.all(clients.map((client) => client.get(`mutex:${key}`)))
}
