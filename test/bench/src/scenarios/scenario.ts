import type { Redis } from 'ioredis'
import type { Contestant } from '../contestants/contestant.js'
import type { Figures, MetricName } from '../metrics.js'

/** Where a contestant runs. */
export interface Ground {
  readonly port: number
  /** The benchmark's own connection, for looking at the server. */
  readonly redis: Redis
  /** How long each measurement takes, in ms. */
  readonly duration: number
  /** How long the same is done once beforehand, without being measured. */
  readonly warmUp: number
  /** False when all that counts is that it runs. */
  readonly full: boolean
}

/** A contestant that is ready, and rests while it isn't measured. */
export interface Ready {
  measure(): Promise<Figures>
  close(): Promise<void>
}

export interface Scenario {
  readonly name: string
  readonly title: string
  /** What is done, and what the figures are of. */
  readonly about: string
  readonly contestants: readonly Contestant[]
  /** Is it measured once only? It takes long, and varies little. */
  readonly once?: boolean
  /** What is shown, in this order; the first one decides who is best. */
  readonly metrics: readonly [MetricName, ...MetricName[]]
  /** Starts what it takes, and warms it up. */
  prepare(contestant: Contestant, ground: Ground): Promise<Ready>
}

/** Of what is started for its measurement, and measured once. */
export function atOnce(
  measure: (contestant: Contestant, ground: Ground) => Promise<Figures>,
): Scenario['prepare'] {
  return async (contestant, ground) => ({
    measure: () => measure(contestant, ground),
    close: async () => {},
  })
}
