import { shown } from '../../options.js'

/**
 * What is asked of a Redis client: the part of ioredis's `Redis` and `Cluster` (5.4 and later, and
 * iovalkey) that the store uses.
 */
export interface RedisClient {
  evalsha(sha: string, keys: number, ...args: string[]): Promise<unknown>
  eval(script: string, keys: number, ...args: string[]): Promise<unknown>
  subscribe(...channels: string[]): Promise<unknown>
  on(event: string, listener: (...args: unknown[]) => void): unknown
  off(event: string, listener: (...args: unknown[]) => void): unknown
  duplicate(override?: object): RedisClient
  disconnect(): void
  wait?(replicas: number, timeout: number): Promise<number>
  pipeline?(): unknown
  readonly status: string
  readonly isCluster?: boolean
  readonly options?: {
    readonly keyPrefix?: string | undefined
    readonly autoResendUnfulfilledCommands?: boolean | undefined
    readonly enableAutoPipelining?: boolean | undefined
    readonly retryStrategy?: unknown
  }
  /** Of a Cluster: its connections. */
  nodes?(): readonly Pick<RedisClient, 'on' | 'off' | 'options'>[]
}

const methods = ['evalsha', 'eval', 'subscribe', 'on', 'off', 'duplicate', 'disconnect'] as const

/** @throws TypeError for what is no client, or none of ioredis's kind */
export function assertClient(value: unknown, name = 'redis'): asserts value is RedisClient {
  const client = value as Partial<Record<keyof RedisClient, unknown>> | null | undefined
  const missing = methods.find((name) => typeof client?.[name] !== 'function')
  if (missing !== undefined || typeof client?.status !== 'string') {
    const lack =
      typeof client === 'object' && client !== null ? ` without ${missing ?? 'status'}` : ''
    // An address may have a password in it.
    const got = typeof value === 'string' ? 'a string' : shown(value) + lack
    throw new TypeError(`${name} must be an ioredis client (Redis or Cluster), got ${got}`)
  }
}
