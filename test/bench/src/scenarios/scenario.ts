import type { Redis } from 'ioredis'
import type { Contestant } from '../contestants/contestant.js'
import type { Figures, MetricName } from '../metrics.js'

/** Where a scenario runs. */
export interface Ground {
  readonly port: number
  /** The benchmark's own connection, for looking at the server. */
  readonly redis: Redis
  /** How long each measurement takes, in ms. */
  readonly duration: number
  /** How long the same is done beforehand, without being measured. */
  readonly warmUp: number
  /** False when all that counts is that it runs. */
  readonly full: boolean
}

export interface Scenario {
  readonly name: string
  readonly title: string
  /** What is done, and what the figures are of. */
  readonly about: string
  readonly contestants: readonly Contestant[]
  /** The most rounds that make sense: for what takes long and varies little. */
  readonly rounds?: number
  /** What is shown, in this order; the first one decides who is best. */
  readonly metrics: readonly [MetricName, ...MetricName[]]
  measure(contestant: Contestant, ground: Ground): Promise<Figures>
}
