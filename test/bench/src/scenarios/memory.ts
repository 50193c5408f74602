import { inMemory } from '../contestants/index.js'
import { loopsScenario } from './loops.js'
import type { Scenario } from './scenario.js'

export const memoryOneKey: Scenario = loopsScenario({
  name: 'memory-one-key',
  title: 'In memory, 64 waiters on one key',
  about: '64 loops in one process, all on one key, without Redis.',
  contestants: inMemory,
  metrics: ['locks', 'p50', 'p99', 'longest', 'clientCpu', 'fairness'],
  processes: 1,
  loops: 64,
  keys: 'one',
  hold: 0,
})

export const memoryManyKeys: Scenario = loopsScenario({
  name: 'memory-many-keys',
  title: 'In memory, 6,400 keys',
  about: '64 loops in one process, each going through 100 keys of its own, without Redis.',
  contestants: inMemory,
  metrics: ['locks', 'p50', 'p99', 'longest', 'clientCpu', 'fairness'],
  processes: 1,
  loops: 64,
  keys: 100,
  hold: 0,
})
