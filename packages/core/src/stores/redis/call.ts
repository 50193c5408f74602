import type { RedisClient } from './client.js'

export type Call = 'evalsha' | 'eval'

/** Sends commands together; gives of each its error, or `null` and its reply. */
interface Pipeline extends Record<Call, (...args: unknown[]) => Pipeline> {
  exec(): Promise<readonly (readonly [error: Error | null, reply?: unknown])[] | null>
}

/**
 * Calls a script.
 *
 * A Cluster client that makes pipelines by itself takes, before ioredis 6, the script for the key that
 * tells the node, and then refuses what it has put together: there each call is a pipeline of its own.
 * @param args more than one in a list, which the client takes apart itself: to spread hundreds costs a
 *   tenth of all that a lock does
 */
export function call(
  client: RedisClient,
  how: Call,
  script: string,
  keys: number,
  args: readonly string[],
): Promise<unknown> {
  const list = args as unknown as string
  const pipelines = client.isCluster && client.options?.enableAutoPipelining
  const pipeline = pipelines ? (client.pipeline?.() as Pipeline | undefined) : undefined
  return pipeline ? alone(pipeline[how](script, keys, list)) : client[how](script, keys, list)
}

/** The reply to the only command of a pipeline. */
async function alone(pipeline: Pipeline): Promise<unknown> {
  const [[error, reply] = [null]] = (await pipeline.exec()) ?? []
  if (error) throw error
  return reply
}
