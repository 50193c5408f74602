import { contestantNamed } from '../contestants/index.js'
import type { Program, Task } from './program.js'

/** Takes and gives back so many locks, going through so many keys. */
export interface SweepRun {
  readonly locks: number
  readonly keys: number
}

export interface SweepResult {
  /** In ms. */
  readonly elapsed: number
  readonly cpu: number
}

/** What this process has, in bytes. */
export interface ProcessMemory {
  readonly heap: number
  readonly rss: number
}

const LOOPS = 64

export async function start({ contestant, port }: Task): Promise<Program> {
  const locker = await contestantNamed(contestant).open(port)
  return {
    steps: { run, memory },
    close: () => locker.close(),
  }

  async function run({ locks, keys }: SweepRun): Promise<SweepResult> {
    let taken = 0
    const began = performance.now()
    const before = process.cpuUsage()
    await Promise.all(Array.from({ length: LOOPS }, take))
    const { user, system } = process.cpuUsage(before)
    return { elapsed: performance.now() - began, cpu: (user + system) / 1000 }

    async function take(): Promise<void> {
      while (taken < locks) {
        const release = await locker.acquire(`user:${taken++ % keys}`)
        await release()
      }
    }
  }
}

/** After what nobody needs any more has been thrown away. */
export function memory(): ProcessMemory {
  globalThis.gc?.()
  const { heapUsed, rss } = process.memoryUsage()
  return { heap: heapUsed, rss }
}
