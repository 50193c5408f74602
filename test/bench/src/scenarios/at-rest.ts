import type { Contestant } from '../contestants/contestant.js'
import { redisSemaphore } from '../contestants/redis-semaphore.js'
import { redismutex } from '../contestants/redismutex.js'
import { redlock } from '../contestants/redlock.js'
import { redlockUniversal } from '../contestants/redlock-universal.js'
import { simpleRedisMutex } from '../contestants/simple-redis-mutex.js'
import type { Figures } from '../metrics.js'
import { Process } from '../process.js'
import type { ProcessMemory } from '../programs/sweep.js'
import { callsBetween, redisUsage } from '../redis-usage.js'
import { atOnce, type Ground, type Scenario } from './scenario.js'

const HELD = 10_000
/** As many as are asked for at once, so that nobody's commands time out. */
const AT_ONCE = 500
/** Long enough for everybody's renewals to come at least once, in ms. */
const RESTING = 9_000

export const atRest: Scenario = {
  name: 'at-rest',
  title: '10,000 held locks at rest',
  about:
    'One process holds 10,000 locks with a lease of 10 s and does nothing for 9 s, in which ' +
    'redismutex and redis-semaphore renew them. The others do not: redlock and redlock-universal ' +
    'would in using(), simple-redis-mutex never does; with their 10 s (redlock) and 30 s, the locks ' +
    'just end.',
  contestants: [redismutex, redisSemaphore, redlock, redlockUniversal, simpleRedisMutex],
  once: true,
  metrics: ['idleCommands', 'idleClientCpu', 'idleRedisCpu', 'redisPerLock', 'heapPerLock'],
  prepare: atOnce(measure),
}

async function measure(contestant: Contestant, { port, redis, full }: Ground): Promise<Figures> {
  const held = full ? HELD : HELD / 20
  const member = await Process.start({ program: 'rest', contestant: contestant.name, port })
  const hold = async (from: number, to: number) => {
    for (let at = from; at < to; at += AT_ONCE) {
      await member.call('hold', { from: at, to: Math.min(at + AT_ONCE, to) })
    }
  }
  // The first few have what is made only once made.
  await hold(0, 100)
  const heapBefore = await member.call<ProcessMemory>('memory')
  const redisBefore = await redisUsage(redis)
  await hold(100, held + 100)
  const heapAfter = await member.call<ProcessMemory>('memory')
  const redisAfter = await redisUsage(redis)
  const seconds = (full ? RESTING : RESTING / 9) / 1000
  const cpu = await member.call<number>('rest', seconds * 1000)
  const rested = await redisUsage(redis)
  await member.end()
  return {
    idleCommands: callsBetween(redisAfter, rested, contestant.sends) / seconds,
    idleClientCpu: cpu / seconds,
    idleRedisCpu: (rested.cpu - redisAfter.cpu) / seconds,
    redisPerLock: (redisAfter.memory - redisBefore.memory) / held,
    heapPerLock: (heapAfter.heap - heapBefore.heap) / held,
  }
}
