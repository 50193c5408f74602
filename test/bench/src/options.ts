import { parseArgs } from 'node:util'
import type { Pace } from './run.js'
import { scenarios } from './scenarios/index.js'
import type { Scenario } from './scenarios/scenario.js'

export interface Options {
  readonly scenarios: readonly Scenario[]
  readonly pace: Pace
  /** Whether it is all that there is to measure, at full length. */
  readonly whole: boolean
  /** How this run can be repeated. */
  readonly command: string
}

const quick: Pace = { rounds: 1, duration: 200, warmUp: 100, full: false }

const usage = `pnpm bench [scenario …] [options]

  --rounds N      how often each contestant is measured (5)
  --duration MS   how long each time (1500)
  --only NAME     only this contestant, or ours, floor or peer; more than once for several
  --quick         a short look at whether it runs: the figures say nothing

Scenarios:
${scenarios.map(({ name, title }) => `  ${name.padEnd(24)}${title}`).join('\n')}`

/** Reads the command line; ends the process if it makes no sense. */
export function readOptions(args: string[]): Options {
  try {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        rounds: { type: 'string', default: '5' },
        duration: { type: 'string', default: '1500' },
        only: { type: 'string', multiple: true },
        quick: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    })
    if (values.help) {
      console.log(usage)
      process.exit()
    }
    for (const name of positionals) {
      if (!scenarios.some((scenario) => scenario.name === name)) {
        throw new Error(`no scenario is named ${name}`)
      }
    }
    const full = { rounds: whole(values, 'rounds'), duration: whole(values, 'duration') }
    return {
      scenarios: scenarios
        .filter(({ name }) => positionals.length === 0 || positionals.includes(name))
        .map((scenario) => only(scenario, values.only)),
      pace: values.quick ? quick : { ...full, warmUp: 3000, full: true },
      whole: positionals.length === 0 && !values.only && !values.quick,
      command: ['npx -y pnpm@12 bench', ...args].join(' '),
    }
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : error}\n\n${usage}`)
    process.exit(1)
  }
}

function whole(values: Record<string, unknown>, name: string): number {
  const value = Number(values[name])
  if (!Number.isInteger(value) || value < 1) {
    throw new Error(`--${name} must be a whole number from 1, got ${values[name]}`)
  }
  return value
}

function only(scenario: Scenario, names: string[] | undefined): Scenario {
  if (!names) return scenario
  const contestants = scenario.contestants.filter(({ name, kind }) => {
    return names.includes(name) || names.includes(kind)
  })
  return { ...scenario, contestants }
}
