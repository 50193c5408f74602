// The chaos suite by hand: npx -y pnpm@12 chaos --help
import { appendFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { endRun } from '../support/cleanup.js'
import { type DeploymentName, deploymentNames } from './deployment.js'
import { report } from './report.js'
import { chaos } from './run.js'

const usage = `Lets processes work under locks while servers, network and processes fail, and checks what they saw.

  --deployment  ${deploymentNames.join(', ')} or all   (default: all)
  --seed        what goes wrong, and when                  (default: 1)
  --seconds     for how long, on each deployment           (default: 60)
  --clients     how many processes                         (default: 4)
  --keep        a folder for the histories                 (default: they are removed)
  --results     a file to which each result is appended as a line of JSON
  --report      nothing is run: what is in --results becomes the figures in docs/reliability.md
`

const { values } = parseArgs({
  options: {
    deployment: { type: 'string', default: 'all' },
    seed: { type: 'string', default: '1' },
    seconds: { type: 'string', default: '60' },
    clients: { type: 'string', default: '4' },
    keep: { type: 'string' },
    results: { type: 'string' },
    report: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

if (values.help) {
  console.log(usage)
} else if (values.report) {
  if (!values.results) throw new TypeError('--report needs --results')
  report(values.results, new URL('../../docs/reliability.md', import.meta.url))
} else {
  const { deployment, keep, results } = values
  const names = deployment === 'all' ? deploymentNames : [deployment as DeploymentName]
  if (!names.every((name) => deploymentNames.includes(name))) {
    throw new RangeError(`--deployment must be one of ${deploymentNames.join(', ')} or all`)
  }
  const seed = positive('seed')
  const duration = 1000 * positive('seconds')
  const clients = positive('clients')
  for (const name of names) {
    console.log(`${name}, seed ${seed}, ${duration / 1000} s, ${clients} processes:`)
    const outcome = await chaos({ deployment: name, seed, duration, clients, keep })
    const { violations, ...figures } = outcome
    console.log(figures)
    for (const { rule, text } of violations) console.log(`  ✗ ${rule}: ${text}`)
    console.log(violations.length === 0 ? '  ✔ all promises kept\n' : '')
    if (violations.length > 0) process.exitCode = 1
    if (results) appendFileSync(results, `${JSON.stringify(outcome)}\n`)
  }
  await endRun()
}

function positive(name: 'seed' | 'seconds' | 'clients'): number {
  const number = Number(values[name])
  if (!(number > 0)) throw new RangeError(`--${name} must be a number above 0, got ${values[name]}`)
  return number
}
