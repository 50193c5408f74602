import type { MetricName } from './metrics.js'
import { bestPeer, type Outcome, ratio } from './results.js'

/** What is to be reached, as a ratio within one run where that can be. */
export interface Goal {
  readonly scenario: string
  /** What is compared. */
  readonly what: string
  readonly bound: '≤' | '≥'
  readonly limit: number
  /** What keeps it from being met where it is missed, and what would change that. */
  readonly why: string | undefined
  /** NaN if it could not be measured. */
  value(outcome: Outcome): number
}

export interface Judgement {
  readonly goal: Goal
  readonly value: number
  readonly met: boolean
}

const toFloor = (metric: MetricName) => (outcome: Outcome) =>
  ratio(outcome.ours, outcome.floor, metric)

const toBestPeer = (metric: MetricName) => (outcome: Outcome) =>
  ratio(outcome.ours, bestPeer(outcome, metric), metric)

const toAsyncMutex = (outcome: Outcome) =>
  ratio(outcome.ours, outcome.named('async-mutex'), 'locks')

const own = (metric: MetricName) => (outcome: Outcome) => outcome.ours?.median(metric) ?? Number.NaN

function goal(
  scenario: string,
  what: string,
  bound: '≤' | '≥',
  limit: number,
  value: Goal['value'],
  why?: string,
): Goal {
  return { scenario, what, bound, limit, value, why }
}

const why = {
  script:
    'A fencing token that rises needs a script, and any script costs more than a plain `SET`: *two small ' +
    'scripts* are the least that gives one. Beyond that ours look for others in the queue, read and write ' +
    'the fence that has tokens rise over a clock that is put back, and take many locks in one call. Of ' +
    '14.6 µs that Redis took for one (`commandstats`), 3.4 were for calling any script at all, 3.2 for ' +
    '`SET`, 0.9 for `EXISTS`, 1.4 for `TIME`, 3.1 for the fence and 2.6 for the lists of what may be many. ' +
    'Of 67 µs until the lock was there (the floor took 44, the same scripts called by hand 57), 10 were ' +
    'redismutex’s own code, which takes 1.8 when it does nothing else (on a client that answers at once): ' +
    'after each wait for a socket, little of it is in the processor’s caches. Only a lock without a token ' +
    'could be as fast as the floor.',
  together:
    'What is saved by going together are calls and writes to sockets, and what those cost differs from ' +
    'machine to machine. Where they are dear (an AMD EPYC, on 2026-11-25) ours took 0.43 of the floor’s CPU ' +
    'and 0.25 of its Redis, with 1.57 times as many locks/s. In a CPU profile of 64 loops half of the ' +
    'process’s time was ioredis’s, a fifth its constructor of a command alone, which flattens hundreds of ' +
    'arguments one by one. Fewer arguments would help; packing them into one for each lock was tried and ' +
    'gave nothing, since Redis then has to take them apart.',
  once: 'It is measured once in a run: what the others have there is how much that varies.',
  oneLoop:
    'The peers’ figure is of one loop that takes the lock again and again while the others starve (see ' +
    'their fairness and longest wait). Ours is what the promises of 64 loops that take turns cost.',
  push:
    'A release that wakes another process is a script with a `PUBLISH`, a message, and what the woken ' +
    'process does with it. *A bare push* is the least of that, without a queue, an owner or a token. Ours ' +
    'sends a renewal besides, before the new holder’s code runs: so a holder that then blocks its event ' +
    'loop has its whole lease. Of 0.69 ms (the median of 800, with a clock read at each step; a PING took ' +
    '0.23 then, a bare push 0.39) the release took 0.06 to be ready and 0.10 for ioredis and the socket to ' +
    'send it, Redis and two processes 0.22 to run it and wake up, ioredis 0.07 to read the message, ' +
    'redismutex 0.09 to act on it, and the renewal 0.15 to be sent. All of that is slow because it is ' +
    'rare: nothing is in the processor’s caches after 3 ms of rest.',
  turns:
    'Each process goes on for a slice of 1.5 ms and hands over (see `hand-over`), so that a turn comes again ' +
    'after about four times both.',
  timers:
    'The holds are timers of 5 ms, which fire late on a busy machine. Between two holds of different ' +
    'processes lies a hand-over (see there).',
  http:
    'All of it shares 2 cores: the server, Redis and the load, where the server without a lock has them to ' +
    'itself. In CPU profiles of Fastify (Node.js 24, 64 connections, 10,000 users, after 12 s) a request ' +
    'took 27 µs without a lock and 43 with one. Of what came on top, 10 µs were writes to Redis, though ' +
    'there was one for ten requests only: a good part is Redis, which runs on the same core when it is ' +
    'woken up. redismutex’s own code took 3.6, spread evenly, ioredis 1.4, streams and events of Node.js ' +
    '1.2 and garbage 1.1; the answers took 3.5 less, since they come together. It takes a server with a ' +
    'lock about 10 s until all of its code is compiled, twice as long as one without. ' +
    'On Node.js 20 and 22 following a request through its promises ' +
    '(`AsyncLocalStorage`) comes on top, which is cheap from 24 on. So does each property that a middleware ' +
    'gives to a request or response of Express, since V8 then makes each of them a shape of its own: with ' +
    '10,000 users, Express on 20 and 22 came to 0.66 of the requests/s without a lock, where a middleware ' +
    'around redis-semaphore, which gives them none, came to 0.80 and 0.85; on 24 to 0.88, the other to ' +
    '0.80. More cores would help.',
  alone:
    'Requests of one user run one after another, and 16 of them take 16 times as long as one: compare the ' +
    'p50 latency of *no lock*. What is above that is the lateness of timers.',
}

function httpGoals(framework: string): Goal[] {
  return [
    goal(
      `${framework}-10000-users`,
      'requests/s, × no lock',
      '≥',
      0.85,
      toFloor('requests'),
      why.http,
    ),
    goal(`${framework}-one-user`, 'requests/s, × no lock', '≥', 0.8, toFloor('requests'), why.http),
    goal(`${framework}-one-user`, 'latency p99, × no lock', '≤', 2, toFloor('latency99'), why.http),
    goal(`${framework}-one-user-5-ms`, 'latency p99, ms', '≤', 100, own('latency99'), why.alone),
  ]
}

export const goals: readonly Goal[] = [
  goal('one-at-a-time', 'wait p50, × floor', '≤', 1.1, toFloor('p50'), why.script),
  goal('64-own-keys', 'locks/s, × floor', '≥', 1.2, toFloor('locks'), why.together),
  goal('64-own-keys', 'client CPU / lock, × floor', '≤', 0.5, toFloor('clientCpu'), why.together),
  goal('64-own-keys', 'Redis CPU / lock, × floor', '≤', 0.6, toFloor('redisCpu'), why.together),
  goal('64-waiters', 'locks/s, × best peer', '≥', 100, toBestPeer('locks'), why.oneLoop),
  goal('64-waiters', 'locks/s, × async-mutex', '≥', 1, toAsyncMutex),
  goal('4x16-waiters', 'locks/s, × best peer', '≥', 30, toBestPeer('locks')),
  goal('4x16-waiters', 'wait p99, ms', '≤', 10, own('p99'), why.turns),
  goal('4x4-waiters-5-ms', 'wait p99, × perfect FIFO', '≤', 1.1, own('fifo'), why.timers),
  goal('4x4-waiters-5-ms', 'locks/s, × best peer', '≥', 1, toBestPeer('locks'), why.timers),
  goal('4x4-waiters-5-ms', 'commands / lock', '≤', 1.3, own('commands')),
  goal('hand-over', 'p50, × one PING', '≤', 1.3, own('handOverPings'), why.push),
  goal('memory-one-key', 'locks/s, × async-mutex', '≥', 1, toAsyncMutex),
  goal('memory-many-keys', 'locks/s, × async-mutex', '≥', 1, toAsyncMutex),
  goal(
    'million-keys',
    'client CPU / lock, × that of 1,000 keys',
    '≤',
    1.1,
    own('clientRise'),
    why.once,
  ),
  goal(
    'million-keys',
    'Redis CPU / lock, × that of 1,000 keys',
    '≤',
    1.1,
    own('redisRise'),
    why.once,
  ),
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
