import { parseArgs } from 'node:util'
import { columns, tableOf } from './report/table.js'
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
  ? { rounds: 1, duration: 200, warmUp: 100 }
  : { rounds: Number(values.rounds), duration: Number(values.duration), warmUp: 400 }

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
  console.log(columns(tableOf(outcome)))
}

function progress(what: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${what}`)
}
