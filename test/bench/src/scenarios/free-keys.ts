import { fencedFloor } from '../contestants/fenced-floor.js'
import { uncontended } from '../contestants/index.js'
import { loopsScenario } from './loops.js'
import type { Scenario } from './scenario.js'

/** Nobody else wants the same lock. */
function freeKeys(name: string, title: string, loops: number): Scenario {
  return loopsScenario({
    name,
    title,
    about:
      loops === 1
        ? 'One loop in one process takes and gives back a lock that nobody else wants.'
        : `${loops} loops in one process, each with a key of its own.`,
    contestants: loops === 1 ? [...uncontended, fencedFloor] : uncontended,
    metrics:
      loops === 1
        ? ['p50', 'p99', 'longest', 'locks', 'commands', 'clientCpu', 'redisCpu']
        : ['locks', 'p50', 'p99', 'longest', 'commands', 'clientCpu', 'redisCpu', 'fairness'],
    processes: 1,
    loops,
    keys: 1,
    hold: 0,
  })
}

export const oneAtATime: Scenario = freeKeys('one-at-a-time', 'One at a time', 1)
export const at64: Scenario = freeKeys('64-own-keys', '64 at once, own keys', 64)
export const at512: Scenario = freeKeys('512-own-keys', '512 at once, own keys', 512)
