import { atRest } from './at-rest.js'
import { at64, at512, oneAtATime } from './free-keys.js'
import { handOver } from './hand-over.js'
import { expressScenarios, fastifyScenarios } from './http.js'
import { memoryManyKeys, memoryOneKey } from './memory.js'
import { millionKeys } from './million-keys.js'
import { fourProcesses, fourProcessesHolding, oneProcess } from './one-key.js'
import type { Scenario } from './scenario.js'

export const scenarios: readonly Scenario[] = [
  oneAtATime,
  at64,
  at512,
  oneProcess,
  fourProcesses,
  fourProcessesHolding,
  handOver,
  memoryOneKey,
  memoryManyKeys,
  millionKeys,
  atRest,
  ...expressScenarios,
  ...fastifyScenarios,
]
