import type { Contestant } from '../contestants/contestant.js'
import { floor } from '../contestants/floor.js'
import { redisSemaphore } from '../contestants/redis-semaphore.js'
import { redismutex } from '../contestants/redismutex.js'
import type { Figures } from '../metrics.js'
import { Process } from '../process.js'
import type { ProcessMemory, SweepResult, SweepRun } from '../programs/sweep.js'
import { type RedisUsage, redisUsage } from '../redis-usage.js'
import { atOnce, type Ground, type Scenario } from './scenario.js'

/** The longest that Redis may take to forget what has expired, in ms. */
const FORGETTING = 40_000
const FEW = 1_000

export const millionKeys: Scenario = {
  name: 'million-keys',
  title: '1,000,000 different keys',
  about:
    '64 loops in one process go through 1,000,000 keys, each locked once, after 200,000 locks on ' +
    '1,000 keys for comparison. Memory is what is left more than before, when Redis has forgotten ' +
    'what expires and the process has collected its garbage.',
  contestants: [redismutex, floor, redisSemaphore],
  once: true,
  metrics: ['locks', 'clientCpu', 'redisCpu', 'clientRise', 'redisRise', 'redisLeft', 'heapLeft'],
  prepare: atOnce(measure),
}

async function measure({ name }: Contestant, ground: Ground): Promise<Figures> {
  const { port, redis, full } = ground
  const many = full ? 1_000_000 : 20_000
  const member = await Process.start({ program: 'sweep', contestant: name, port })
  const sweep = async (run: SweepRun) => {
    const before = await redisUsage(redis)
    const { elapsed, cpu } = await member.call<SweepResult>('run', run)
    const after = await redisUsage(redis)
    return {
      locks: (run.locks / elapsed) * 1000,
      clientCpu: (cpu / run.locks) * 1000,
      redisCpu: ((after.cpu - before.cpu) / run.locks) * 1000,
    }
  }
  // Once unmeasured: the comparison must not be with code that is not compiled yet.
  await sweep({ locks: many / 20, keys: FEW })
  const few = await sweep({ locks: many / 5, keys: FEW })
  await forgotten(ground)
  const heapBefore = await member.call<ProcessMemory>('memory')
  const redisBefore = await redisUsage(redis)
  const all = await sweep({ locks: many, keys: many })
  const redisAfter = await forgotten(ground)
  const heapAfter = await member.call<ProcessMemory>('memory')
  await member.end()
  return {
    ...all,
    clientRise: all.clientCpu / few.clientCpu,
    redisRise: all.redisCpu / few.redisCpu,
    redisLeft: (redisAfter.memory - redisBefore.memory) / 1e6,
    heapLeft: (heapAfter.heap - heapBefore.heap) / 1e6,
  }
}

/** Resolves when no key is left in Redis, and its tables have shrunk. */
async function forgotten({ redis }: Ground): Promise<RedisUsage> {
  const end = performance.now() + FORGETTING
  while ((await redis.dbsize()) > 0) {
    if (performance.now() > end) throw new Error(`keys are left after ${FORGETTING} ms`)
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
  let usage = await redisUsage(redis)
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 500))
    const later = await redisUsage(redis)
    if (later.memory >= usage.memory * 0.99) return later
    usage = later
  }
}
