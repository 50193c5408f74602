import type { Contestant } from '../contestants/contestant.js'
import type { Figures } from '../metrics.js'
import { Process } from '../process.js'
import type { Loops, LoopsResult, LoopsRun } from '../programs/loops.js'
import { callsBetween, redisUsage } from '../redis-usage.js'
import { sorted } from '../samples.js'
import { fairness, percentile, slidingSums } from '../statistics.js'
import type { Ground, Ready, Scenario } from './scenario.js'

export interface LoopsScenario extends Omit<Scenario, 'prepare'>, Loops {
  readonly processes: number
}

/** A scenario in which loops in one or more processes take locks as fast as they get them. */
export function loopsScenario(set: LoopsScenario): Scenario {
  return { ...set, prepare: (contestant, ground) => prepare(set, contestant, ground) }
}

async function prepare(set: LoopsScenario, contestant: Contestant, ground: Ground): Promise<Ready> {
  const { loops, keys, hold } = set
  const crew = await Process.startAll(set.processes, {
    program: 'loops',
    contestant: contestant.name,
    port: ground.port,
  })
  const run = (duration: number) => {
    const input: LoopsRun = { loops, keys, hold, duration }
    return Promise.all(crew.map((member) => member.call<LoopsResult>('run', input)))
  }
  await run(ground.warmUp)
  return {
    async measure() {
      const before = await redisUsage(ground.redis)
      const results = await run(ground.duration)
      const after = await redisUsage(ground.redis)
      return figuresOf(results, set, ground.duration, {
        calls: callsBetween(before, after, contestant.sends),
        cpu: after.cpu - before.cpu,
      })
    },
    close: async () => void (await Promise.all(crew.map((member) => member.end()))),
  }
}

function figuresOf(
  results: readonly LoopsResult[],
  { hold }: LoopsScenario,
  duration: number,
  redis: { readonly calls: number; readonly cpu: number },
): Figures {
  const shares = results.flatMap((result) => result.shares)
  const inTime = shares.reduce((sum, share) => sum + share, 0)
  const waits = sorted(results.map((result) => result.waits))
  const cpu = results.reduce((sum, result) => sum + result.cpu, 0)
  const p99 = percentile(waits, 99)
  return {
    locks: (inTime / duration) * 1000,
    p50: percentile(waits, 50),
    p99,
    longest: percentile(waits, 100),
    commands: redis.calls / waits.length,
    clientCpu: (cpu / waits.length) * 1000,
    redisCpu: (redis.cpu / waits.length) * 1000,
    fairness: fairness(shares),
    ...(hold > 0 && { fifo: p99 / perfectFifo(results, shares.length) }),
  }
}

/**
 * The p99 wait if the holds of this run had followed each other without a gap, first come, first
 * served: everybody waits for everybody else once.
 */
function perfectFifo(results: readonly LoopsResult[], workers: number): number {
  const holds = results
    .flatMap(({ gots, holds }) => [...gots].map((got, index) => ({ got, hold: holds[index] ?? 0 })))
    .sort((a, b) => a.got - b.got)
    .map(({ hold }) => hold)
  return percentile(slidingSums(holds, workers - 1).sort(), 99)
}
