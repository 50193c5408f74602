import { at64, at512, oneAtATime } from './free-keys.js'
import { fourProcesses, fourProcessesHolding, oneProcess } from './one-key.js'
import type { Scenario } from './scenario.js'

export const scenarios: readonly Scenario[] = [
  oneAtATime,
  at64,
  at512,
  oneProcess,
  fourProcesses,
  fourProcessesHolding,
]
