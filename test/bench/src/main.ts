// Runs all scenarios, or those that are named, and says what came of it. A whole run at full length
// writes the documentation, too.

import { judge } from './goals.js'
import { readOptions } from './options.js'
import { measureReach } from './reach/measure.js'
import { environment } from './report/environment.js'
import { columns, goalsTable, tableOf } from './report/table.js'
import type { Outcome } from './results.js'
import { runScenario } from './run.js'

const { scenarios, pace, whole, command } = readOptions(process.argv.slice(2))
const began = performance.now()
const outcomes: Outcome[] = []
for (const scenario of scenarios) {
  console.log(`\n${scenario.title} (${scenario.name})\n${scenario.about}\n`)
  const outcome = await runScenario(scenario, pace, progress)
  outcomes.push(outcome)
  progress('')
  console.log(columns(tableOf(outcome)))
}
const judgements = judge(outcomes)
if (judgements.length > 0) console.log(`\nGoals\n\n${columns(goalsTable(judgements))}`)
if (whole) {
  console.log('\nHow far it carries')
  const reach = await measureReach(pace, progress)
  progress('')
  const date = new Date().toISOString().slice(0, 10)
  const { rounds, duration } = pace
  const facts = { command, date, environment: environment(), rounds, duration: duration / 1000 }
  // Drawing takes a lot to load.
  const { write } = await import('./report/write.js')
  const files = await write(outcomes, reach, facts)
  console.log(`Written: ${files.join(', ')}`)
}
console.log(`\n${Math.round((performance.now() - began) / 1000)} s in all`)

function progress(what: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${what}`)
}
