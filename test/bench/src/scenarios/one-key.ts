import { asyncMutex } from '../contestants/async-mutex.js'
import { contended } from '../contestants/index.js'
import { loopsScenario } from './loops.js'
import type { Scenario } from './scenario.js'

export const oneProcess: Scenario = loopsScenario({
  name: '64-waiters',
  title: '64 waiters on one key, one process',
  about: '64 loops in one process, all on one key, with nothing to do under the lock.',
  contestants: [...contended, asyncMutex],
  metrics: ['locks', 'p50', 'p99', 'longest', 'commands', 'clientCpu', 'redisCpu', 'fairness'],
  processes: 1,
  loops: 64,
  keys: 'one',
  hold: 0,
})

export const fourProcesses: Scenario = loopsScenario({
  name: '4x16-waiters',
  title: '4 processes × 16 waiters on one key',
  about: '16 loops in each of 4 processes, all on one key, with nothing to do under the lock.',
  contestants: contended,
  metrics: ['locks', 'p50', 'p99', 'longest', 'commands', 'clientCpu', 'redisCpu', 'fairness'],
  processes: 4,
  loops: 16,
  keys: 'one',
  hold: 0,
})

export const fourProcessesHolding: Scenario = loopsScenario({
  name: '4x4-waiters-5-ms',
  title: '4 processes × 4 waiters on one key, 5 ms each',
  about:
    '4 loops in each of 4 processes, all on one key, held for 5 ms (a timer). Perfect FIFO: the p99 ' +
    'wait if the same holds had followed each other in order and without a gap.',
  contestants: contended,
  metrics: [
    ...(['p99', 'fifo', 'locks', 'p50', 'longest', 'commands'] as const),
    ...(['clientCpu', 'redisCpu', 'fairness'] as const),
  ],
  processes: 4,
  loops: 4,
  keys: 'one',
  hold: 5,
})
