import { asyncMutex } from './async-mutex.js'
import { barePush } from './bare-push.js'
import type { Contestant } from './contestant.js'
import { fencedFloor } from './fenced-floor.js'
import { floor } from './floor.js'
import { redisSemaphore } from './redis-semaphore.js'
import { redismutex, redismutexInMemory, redismutexOnCluster } from './redismutex.js'
import { redlock, redlockPolling } from './redlock.js'
import { redlockUniversal, redlockUniversalPolling } from './redlock-universal.js'
import { simpleRedisMutex } from './simple-redis-mutex.js'

import { withoutLock } from './without-lock.js'

export const contestants: readonly Contestant[] = [
  redismutex,
  floor,
  fencedFloor,
  barePush,
  redisSemaphore,
  redlock,
  redlockPolling,
  redlockUniversal,
  redlockUniversalPolling,
  simpleRedisMutex,
  redismutexInMemory,
  asyncMutex,
  withoutLock,
  redismutexOnCluster,
]

export function contestantNamed(name: string): Contestant {
  const found = contestants.find((contestant) => contestant.name === name)
  if (!found) throw new Error(`No contestant is named ${name}`)
  return found
}

/** For scenarios in which nobody waits: how others poll makes no difference there. */
export const uncontended: readonly Contestant[] = [
  redismutex,
  floor,
  redisSemaphore,
  redlock,
  redlockUniversal,
  simpleRedisMutex,
]

/** For scenarios in which several want the same. */
export const contended: readonly Contestant[] = [
  redismutex,
  redisSemaphore,
  redlock,
  redlockPolling,
  redlockUniversal,
  redlockUniversalPolling,
  simpleRedisMutex,
]

export const inMemory: readonly Contestant[] = [redismutexInMemory, asyncMutex]
