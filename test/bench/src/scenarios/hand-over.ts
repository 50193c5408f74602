import { barePush } from '../contestants/bare-push.js'
import type { Contestant } from '../contestants/contestant.js'
import { contended } from '../contestants/index.js'
import { Process } from '../process.js'
import { median, percentile } from '../statistics.js'
import type { Ground, Ready, Scenario } from './scenario.js'

/** How long the other process has for getting in line, in ms. */
const QUEUEING = 3

export const handOver: Scenario = {
  name: 'hand-over',
  title: 'Hand-over between two processes',
  about:
    'One process holds a lock that another one waits for, and gives it back; then the other way ' +
    'round. From just before the release in one to the first line of code in the other, on a clock ' +
    'that both share; beside it a PING and its answer, sent as rarely.',
  contestants: [...contended, barePush],
  metrics: ['handOver50', 'handOverPings', 'handOver99', 'ping50'],
  prepare,
}

async function prepare({ name }: Contestant, { port, ...ground }: Ground): Promise<Ready> {
  const crew = await Process.startAll(2, { program: 'hand-over', contestant: name, port })
  let [holder, waiter] = crew as [Process, Process]

  async function run(duration: number): Promise<{ handOvers: Float64Array; pings: number[] }> {
    const handOvers: number[] = []
    const pings: number[] = []
    const end = performance.now() + duration
    await holder.call('take')
    while (performance.now() < end) {
      const taken = waiter.call<number>('take')
      await pause()
      const released = await holder.call<number>('giveBack')
      handOvers.push((await taken) - released)
      await pause()
      pings.push(await holder.call<number>('ping'))
      ;[holder, waiter] = [waiter, holder]
    }
    await holder.call('giveBack')
    return { handOvers: Float64Array.from(handOvers).sort(), pings }
  }

  await run(ground.warmUp)
  return {
    async measure() {
      const { handOvers, pings } = await run(ground.duration)
      const ping50 = median(pings)
      const handOver50 = percentile(handOvers, 50)
      return {
        handOver50,
        handOver99: percentile(handOvers, 99),
        ping50,
        handOverPings: handOver50 / ping50,
      }
    },
    close: async () => void (await Promise.all(crew.map((member) => member.end()))),
  }
}

function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, QUEUEING))
}
