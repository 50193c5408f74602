import type { Contestant } from './contestants/contestant.js'
import { type Figures, type MetricName, metrics } from './metrics.js'
import type { Scenario } from './scenarios/scenario.js'
import { median } from './statistics.js'

/** All rounds of one contestant in one scenario. */
export class Entry {
  readonly rounds: Figures[] = []

  constructor(readonly contestant: Contestant) {}

  all(metric: MetricName): number[] {
    return this.rounds.flatMap((figures) => figures[metric] ?? [])
  }

  /** The median of all rounds; NaN if it was not measured. */
  median(metric: MetricName): number {
    return median(this.all(metric))
  }
}

/** What one scenario gave. */
export class Outcome {
  readonly entries: readonly Entry[]

  constructor(readonly scenario: Scenario) {
    this.entries = scenario.contestants.map((contestant) => new Entry(contestant))
  }

  get ours(): Entry | undefined {
    return this.entries.find(({ contestant }) => contestant.kind === 'ours')
  }

  get floor(): Entry | undefined {
    return this.entries.find(({ contestant }) => contestant.kind === 'floor')
  }

  named(name: string): Entry | undefined {
    return this.entries.find(({ contestant }) => contestant.name === name)
  }

  /** Those that do the same as ours: a lock in memory is none between processes. */
  get peers(): readonly Entry[] {
    const store = this.ours?.contestant.store
    return this.entries.filter(({ contestant }) => {
      return contestant.kind === 'peer' && (store === undefined || contestant.store === store)
    })
  }
}

/** How much one has of what another has: the median of the rounds, in each of which they were side by side. */
export function ratio(
  entry: Entry | undefined,
  other: Entry | undefined,
  metric: MetricName,
): number {
  const figures = entry?.all(metric) ?? []
  const others = other?.all(metric) ?? []
  return median(others.map((figure, round) => (figures[round] ?? Number.NaN) / figure))
}

/** Which of the others does best by this metric. */
export function bestPeer(outcome: Outcome, metric: MetricName): Entry | undefined {
  const sign = metrics[metric].better === 'more' ? -1 : 1
  return outcome.peers
    .filter((entry) => Number.isFinite(entry.median(metric)))
    .sort((a, b) => sign * (a.median(metric) - b.median(metric)))[0]
}
