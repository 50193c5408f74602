import { setTimeout as sleep } from 'node:timers/promises'
import { sharedNow } from '../clock.js'
import { contestantNamed } from '../contestants/index.js'
import { Samples } from '../samples.js'
import type { Program, Task } from './program.js'

/** Loops that take a lock, hold it and give it back, again and again. */
export interface Loops {
  readonly loops: number
  /**
   * What a loop wants: one key that all loops want, one that a loop of each other process wants too,
   * or so many keys of its own, one after the other.
   */
  readonly keys: 'one' | 'one each process wants' | number
  /** How long each lock is held, in ms. */
  readonly hold: number
}

export interface LoopsRun extends Loops {
  readonly duration: number
}

export interface LoopsResult {
  /** The locks that each loop got within the time. */
  readonly shares: number[]
  /** How long each lock was waited for, in ms; also those that came when the time was over. */
  readonly waits: Float64Array
  /** How long each took in all, from asking to having given it back. */
  readonly rounds: Float64Array
  /** When each lock was got, on the clock that all processes share, and how long it was held. */
  readonly gots: Float64Array
  readonly holds: Float64Array
  /** CPU time of this process, in ms. */
  readonly cpu: number
}

export async function start({ contestant, port }: Task): Promise<Program> {
  const locker = await contestantNamed(contestant).open(port)
  return {
    steps: { run },
    close: () => locker.close(),
  }

  async function run({ loops, keys, hold, duration }: LoopsRun): Promise<LoopsResult> {
    const waits = new Samples()
    const rounds = new Samples()
    const gots = new Samples()
    const holds = new Samples()
    const end = performance.now() + duration
    const before = process.cpuUsage()
    const shares = await Promise.all(Array.from({ length: loops }, (_, loop) => take(loop)))
    const { user, system } = process.cpuUsage(before)
    return {
      shares,
      waits: waits.take(),
      rounds: rounds.take(),
      gots: gots.take(),
      holds: holds.take(),
      cpu: (user + system) / 1000,
    }

    async function take(loop: number): Promise<number> {
      const wanted = keysOf(loop, keys)
      let share = 0
      for (let turn = 0; ; turn++) {
        const asked = performance.now()
        if (asked >= end) return share
        const release = await locker.acquire(wanted[turn % wanted.length] as string)
        const got = performance.now()
        waits.add(got - asked)
        if (hold > 0) {
          gots.add(sharedNow())
          await sleep(hold)
          holds.add(performance.now() - got)
        }
        await release()
        const done = performance.now()
        rounds.add(done - asked)
        if (done <= end) share++
      }
    }
  }
}

function keysOf(loop: number, keys: Loops['keys']): string[] {
  if (keys === 'one') return ['shared']
  if (keys === 'one each process wants') return [`shared:${loop}`]
  return Array.from({ length: keys }, (_, key) => `${process.pid}:${loop}:${key}`)
}
