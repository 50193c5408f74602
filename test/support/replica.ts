import { answer } from './command.js'
import { poll } from './poll.js'
import { type RedisServer, startRedis } from './redis.js'

/** A Redis and its replica. */
export interface Replicated {
  readonly primary: RedisServer
  readonly replica: RedisServer
  stop(): Promise<void>
}

/** Starts a Redis with a replica, which is in step. */
export async function startReplicated(): Promise<Replicated> {
  const primary = await startRedis()
  const replica = await startRedis({
    args: ['--replicaof', '127.0.0.1', `${primary.port}`, '--repl-diskless-sync-delay', '0'],
  })
  await inStep(replica)
  const stop = async () => void (await Promise.all([primary.stop(), replica.stop()]))
  return { primary, replica, stop }
}

/** Resolves once a replica follows its primary. */
export async function inStep(replica: RedisServer): Promise<void> {
  const link = () => answer(replica.port, 'INFO', 'replication')
  await poll('a replica in step', async () =>
    String(await link()).includes('master_link_status:up'),
  )
}
