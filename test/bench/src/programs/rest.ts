import { setTimeout as sleep } from 'node:timers/promises'
import { contestantNamed } from '../contestants/index.js'
import type { Program, Task } from './program.js'
import { memory } from './sweep.js'

/** Takes many locks, and keeps them. */
export async function start({ contestant, port }: Task): Promise<Program> {
  const locker = await contestantNamed(contestant).open(port)
  const held: unknown[] = []
  return {
    steps: { hold, rest, memory },
    // What is held ends with the process.
    close: async () => {},
  }

  async function hold({ from, to }: { from: number; to: number }): Promise<void> {
    const keys = Array.from({ length: to - from }, (_, index) => `user:${from + index}`)
    held.push(...(await Promise.all(keys.map((key) => locker.acquire(key)))))
  }

  /** Gives the CPU time of that many ms, in ms. */
  async function rest(ms: number): Promise<number> {
    const before = process.cpuUsage()
    await sleep(ms)
    const { user, system } = process.cpuUsage(before)
    return (user + system) / 1000
  }
}
