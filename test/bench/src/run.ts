import { type RedisServer, startRedis } from '../../support/redis.js'
import { connect } from './contestants/connection.js'
import { Outcome } from './results.js'
import type { Ground, Scenario } from './scenarios/scenario.js'

export interface Pace {
  readonly rounds: number
  readonly duration: number
  readonly warmUp: number
  readonly full: boolean
}

/** Runs all contestants in turn, round after round, each round beginning with another one. */
export async function runScenario(
  scenario: Scenario,
  pace: Pace,
  told: (what: string) => void,
): Promise<Outcome> {
  const outcome = new Outcome(scenario)
  const { entries } = outcome
  const rounds = Math.min(pace.rounds, scenario.rounds ?? pace.rounds)
  for (let round = 0; round < rounds; round++) {
    for (let turn = 0; turn < entries.length; turn++) {
      const entry = entries[(turn + round) % entries.length]
      if (!entry) continue
      told(`round ${round + 1} of ${rounds}: ${entry.contestant.name}`)
      const server = await startRedis()
      try {
        entry.rounds.push(await measure(scenario, entry.contestant, server, pace))
      } finally {
        await server.stop()
      }
    }
  }
  return outcome
}

async function measure(
  scenario: Scenario,
  contestant: Outcome['entries'][number]['contestant'],
  { port }: RedisServer,
  { duration, warmUp, full }: Pace,
) {
  const redis = await connect(port)
  const ground: Ground = { port, redis, duration, warmUp, full }
  try {
    return await scenario.measure(contestant, ground)
  } finally {
    redis.disconnect()
  }
}
