import type { RedisServer } from '../support/redis.js'
import type { Connection, Seen } from './connection.js'
import type { Terms } from './history.js'
import type { Random } from './random.js'

export const deploymentNames = ['single', 'sentinel', 'cluster', 'quorum'] as const
export type DeploymentName = (typeof deploymentNames)[number]

/** Something that may happen to the servers. */
export interface Trouble {
  readonly kind: string
  /** How often it is drawn, beside the others. */
  readonly weight: number
  /** May it lose what had been acknowledged? */
  readonly loses: boolean
  /** Does another server become the master of something? */
  readonly elects?: boolean
  /** Makes it happen, and resolves when all is well again. */
  happen(random: Random, terms: Terms): Promise<void>
}

/** Servers, and what can happen to them. */
export interface Deployment {
  readonly name: DeploymentName
  /** Those that clients talk to, each by way of a proxy of its own. */
  readonly nodes: readonly RedisServer[]
  readonly troubles: readonly Trouble[]
  connection(seen: Seen): Connection
  /** Those that have the data now. */
  masters(): Promise<readonly RedisServer[]>
  /** Resolves when all servers are up and agree. */
  settled(): Promise<void>
  stop(): Promise<void>
}

/**
 * What was acknowledged is in the file, and so outlives the process, if not the machine: a server
 * that is killed and started again has lost nothing.
 */
export const lasting: readonly string[] = ['--appendonly', 'yes', '--appendfsync', 'no']
