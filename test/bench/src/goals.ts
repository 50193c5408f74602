import type { MetricName } from './metrics.js'
import { bestPeer, type Entry, type Outcome } from './results.js'

/** What is to be reached, as a ratio within one run where that can be. */
export interface Goal {
  readonly scenario: string
  /** What is compared. */
  readonly what: string
  readonly bound: '≤' | '≥'
  readonly limit: number
  /** NaN if it could not be measured. */
  value(outcome: Outcome): number
}

export interface Judgement {
  readonly goal: Goal
  readonly value: number
  readonly met: boolean
}

const ours = (outcome: Outcome, metric: MetricName): number => of(outcome.ours, metric)

const of = (entry: Entry | undefined, metric: MetricName): number =>
  entry?.median(metric) ?? Number.NaN

const toFloor = (metric: MetricName) => (outcome: Outcome) =>
  ours(outcome, metric) / of(outcome.floor, metric)

const toBestPeer = (metric: MetricName) => (outcome: Outcome) =>
  ours(outcome, metric) / of(bestPeer(outcome, metric), metric)

const toAsyncMutex = (outcome: Outcome) =>
  ours(outcome, 'locks') / of(outcome.named('async-mutex'), 'locks')

const own = (metric: MetricName) => (outcome: Outcome) => ours(outcome, metric)

function goal(
  scenario: string,
  what: string,
  bound: '≤' | '≥',
  limit: number,
  value: Goal['value'],
): Goal {
  return { scenario, what, bound, limit, value }
}

function httpGoals(framework: string): Goal[] {
  return [
    goal(`${framework}-10000-users`, 'requests/s, × no lock', '≥', 0.85, toFloor('requests')),
    goal(`${framework}-one-user`, 'requests/s, × no lock', '≥', 0.8, toFloor('requests')),
    goal(`${framework}-one-user`, 'latency p99, × no lock', '≤', 2, toFloor('latency99')),
    goal(`${framework}-one-user-5-ms`, 'latency p99, ms', '≤', 100, own('latency99')),
  ]
}

export const goals: readonly Goal[] = [
  goal('one-at-a-time', 'wait p50, × floor', '≤', 1.1, toFloor('p50')),
  goal('64-own-keys', 'locks/s, × floor', '≥', 1.2, toFloor('locks')),
  goal('64-own-keys', 'client CPU / lock, × floor', '≤', 0.5, toFloor('clientCpu')),
  goal('64-own-keys', 'Redis CPU / lock, × floor', '≤', 0.6, toFloor('redisCpu')),
  goal('64-waiters', 'locks/s, × best peer', '≥', 100, toBestPeer('locks')),
  goal('64-waiters', 'locks/s, × async-mutex', '≥', 1, toAsyncMutex),
  goal('4x16-waiters', 'locks/s, × best peer', '≥', 30, toBestPeer('locks')),
  goal('4x16-waiters', 'wait p99, ms', '≤', 10, own('p99')),
  goal('4x4-waiters-5-ms', 'wait p99, × perfect FIFO', '≤', 1.1, own('fifo')),
  goal('4x4-waiters-5-ms', 'locks/s, × best peer', '≥', 1, toBestPeer('locks')),
  goal('4x4-waiters-5-ms', 'commands / lock', '≤', 1.3, own('commands')),
  goal('hand-over', 'p50, × one PING', '≤', 1.3, own('handOverPings')),
  goal('memory-one-key', 'locks/s, × async-mutex', '≥', 1, toAsyncMutex),
  goal('memory-many-keys', 'locks/s, × async-mutex', '≥', 1, toAsyncMutex),
  goal('million-keys', 'client CPU / lock, × that of 1,000 keys', '≤', 1.1, own('clientRise')),
  goal('million-keys', 'Redis CPU / lock, × that of 1,000 keys', '≤', 1.1, own('redisRise')),
  goal('million-keys', 'left in Redis, MB', '≤', 1, own('redisLeft')),
  goal('million-keys', "left in the process's heap, MB", '≤', 1, own('heapLeft')),
  ...httpGoals('express'),
  ...httpGoals('fastify'),
]

/** Judges those goals of which everything that they compare was measured. */
export function judge(outcomes: readonly Outcome[]): Judgement[] {
  return goals.flatMap((goal) => {
    const outcome = outcomes.find(({ scenario }) => scenario.name === goal.scenario)
    const value = outcome ? goal.value(outcome) : Number.NaN
    if (!Number.isFinite(value)) return []
    return [{ goal, value, met: goal.bound === '≤' ? value <= goal.limit : value >= goal.limit }]
  })
}
