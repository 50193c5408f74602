import { setTimeout as sleep } from 'node:timers/promises'
import { sharedNow } from '../clock.js'
import { connect } from '../contestants/connection.js'
import type { Release } from '../contestants/contestant.js'
import { contestantNamed } from '../contestants/index.js'
import type { Program, Task } from './program.js'

/** Takes one lock and gives it back when told to, and says when. */
export async function start({ contestant, port }: Task): Promise<Program> {
  const locker = await contestantNamed(contestant).open(port)
  const redis = await connect(port)
  let release: Release = () => {}
  return {
    steps: { take, giveBack, ping },
    close: async () => {
      redis.disconnect()
      await locker.close()
    },
  }

  async function take(): Promise<number> {
    release = await locker.acquire('shared')
    return sharedNow()
  }

  async function giveBack(): Promise<number> {
    const at = sharedNow()
    await release()
    // So that telling of it does not run beside what is measured.
    await sleep(1)
    return at
  }

  /** As cold as a hand-over is: nothing has run here for some time. */
  async function ping(): Promise<number> {
    await sleep(1)
    const sent = performance.now()
    await redis.ping()
    return performance.now() - sent
  }
}
