import type { Redis } from 'ioredis'

/** What a Redis has done and has, from its start until now. */
export interface RedisUsage {
  /** CPU time, in ms. */
  readonly cpu: number
  /** The calls of each command, those of scripts included. */
  readonly calls: ReadonlyMap<string, number>
  /** In bytes, as all that follow. */
  readonly memory: number
  readonly received: number
  readonly sent: number
}

export async function redisUsage(redis: Redis): Promise<RedisUsage> {
  const info = await redis.info('cpu', 'commandstats', 'memory', 'stats')
  const number = (name: string) => Number(info.match(new RegExp(`^${name}:([\\d.]+)`, 'm'))?.[1])
  const calls = new Map<string, number>()
  for (const [, name, count] of info.matchAll(/^cmdstat_(\S+?):calls=(\d+)/gm)) {
    calls.set(name as string, Number(count))
  }
  return {
    cpu: (number('used_cpu_user') + number('used_cpu_sys')) * 1000,
    calls,
    memory: number('used_memory'),
    received: number('total_net_input_bytes'),
    sent: number('total_net_output_bytes'),
  }
}

/** How often the commands with these names were called between two looks. */
export function callsBetween(
  before: RedisUsage,
  after: RedisUsage,
  names: readonly string[],
): number {
  return names.reduce(
    (sum, name) => sum + (after.calls.get(name) ?? 0) - (before.calls.get(name) ?? 0),
    0,
  )
}
