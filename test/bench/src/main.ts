import { parseArgs } from 'node:util'
import { judge } from './goals.js'
import { columns, goalsTable, tableOf } from './report/table.js'
import type { Outcome } from './results.js'
import { runScenario } from './run.js'
import { scenarios } from './scenarios/index.js'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '3' },
    duration: { type: 'string', default: '1500' },
    only: { type: 'string', multiple: true },
    quick: { type: 'boolean', default: false },
  },
})

for (const name of positionals) {
  if (!scenarios.some((scenario) => scenario.name === name)) {
    console.error(`No scenario is named ${name}. There are:`)
    for (const scenario of scenarios)
      console.error(`  ${scenario.name.padEnd(20)}${scenario.about}`)
    process.exit(1)
  }
}
const pace = values.quick
  ? { rounds: 1, duration: 200, warmUp: 100, full: false }
  : { rounds: Number(values.rounds), duration: Number(values.duration), warmUp: 500, full: true }

const outcomes: Outcome[] = []
for (const scenario of scenarios) {
  if (positionals.length > 0 && !positionals.includes(scenario.name)) continue
  const chosen = {
    ...scenario,
    contestants: scenario.contestants.filter(
      ({ name, kind }) => !values.only || values.only.includes(name) || values.only.includes(kind),
    ),
  }
  console.log(`\n${scenario.title} (${scenario.name})\n${scenario.about}\n`)
  const outcome = await runScenario(chosen, pace, progress)
  progress('')
  outcomes.push(outcome)
  console.log(columns(tableOf(outcome)))
}

const judgements = judge(outcomes)
if (judgements.length > 0) console.log(`\nGoals\n\n${columns(goalsTable(judgements))}`)

function progress(what: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${what}`)
}
