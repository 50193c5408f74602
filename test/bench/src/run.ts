import { startRedis } from '../../support/redis.js'
import { connect } from './contestants/connection.js'
import { Outcome } from './results.js'
import type { Scenario } from './scenarios/scenario.js'

export interface Pace {
  readonly rounds: number
  readonly duration: number
  readonly warmUp: number
  readonly full: boolean
}

/**
 * Prepares all contestants, each with a Redis of its own, and measures them in turn, round after round,
 * each round beginning with another one: a machine that is slower for a while is so for all.
 */
export async function runScenario(
  scenario: Scenario,
  { rounds, ...pace }: Pace,
  told: (what: string) => void,
): Promise<Outcome> {
  const outcome = new Outcome(scenario)
  const crew = outcome.entries.map((entry) => ({ entry, name: entry.contestant.name }))
  const stops: (() => unknown)[] = []
  try {
    const ready = []
    for (const { entry, name } of crew) {
      told(`warming up: ${name}`)
      const server = await startRedis()
      stops.push(() => server.stop())
      const redis = await connect(server.port)
      stops.push(() => redis.disconnect())
      const { port } = server
      const contestant = await scenario.prepare(entry.contestant, { port, redis, ...pace })
      ready.push({ entry, name, contestant })
    }
    const times = scenario.once ? 1 : rounds
    for (let round = 0; round < times; round++) {
      const first = round % ready.length
      for (const { entry, name, contestant } of [...ready.slice(first), ...ready.slice(0, first)]) {
        told(`round ${round + 1} of ${times}: ${name}`)
        entry.rounds.push(await contestant.measure())
      }
    }
    for (const { contestant } of ready) await contestant.close()
  } finally {
    for (const stop of stops.reverse()) await stop()
  }
  return outcome
}
