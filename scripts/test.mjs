// Runs the tests: finds or installs Redis, builds the packages, then starts Mocha.
// Arguments go to Mocha, like the names of test files; --coverage, if it comes first, measures.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { installed, root, run } from './programs.mjs'
import { needRedis } from './redis.mjs'

/** Where the test reporter writes its summary, and whoever starts this one may want it. */
const SUMMARY = 'REDISMUTEX_TEST_SUMMARY'
const args = process.argv.slice(2)
const coverage = args[0] === '--coverage'
if (coverage) args.shift()

needRedis()
run(installed('tsc'), ['-b', 'packages/core', 'packages/express', 'packages/fastify', 'test/bench'])
if (coverage) run(installed('c8'), ['mocha', ...args])
else if (args.length > 0) run(installed('mocha'), args)
else await runEverything()

/**
 * Runs all tests in processes side by side, since most wait for something most of the time. Prints one
 * after the other, and the sum of all at the end.
 */
async function runEverything() {
  const apart = [
    ['http/[a-n]*.test.ts'],
    ['http/[o-z]*.test.ts'],
    ['faults/[a-h]*.test.ts'],
    ['faults/[i-z]*.test.ts'],
    ['replies', 'examples', 'packaging'],
    ['processes', 'runner', 'chaos'],
    ['deployments', 'quorum'],
  ]
  const rest = apart.flat().map((name) => `--ignore=test/${name.split('/')[0]}/**`)
  const all = [rest, ...apart.map((names) => names.map((name) => `test/${name}`))]
  const runs = await Promise.all(
    all.map((args, lane) =>
      runMocha(lane === 0 ? 'inherit' : 'pipe', `${lane}/${all.length}`, args),
    ),
  )
  // Those that failed last, so that they are found at the end of a long log.
  runs.sort((a, b) => Number(a.code !== 0) - Number(b.code !== 0))
  const total = { passed: 0, failed: 0, skipped: 0 }
  for (const { output, code, summary } of runs) {
    process.stdout.write(output)
    for (const [, count, what] of summary.matchAll(/(\d+) (\w+)/g)) total[what] += Number(count)
    if (code !== 0 && !/[1-9]\d* failed/.test(summary)) total.failed++
  }
  const { passed, failed, skipped } = total
  const summary = `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`
  if (process.env[SUMMARY]) writeFileSync(process.env[SUMMARY], `${summary}\n`)
  console.log(`\nAll tests:\n${summary}`)
  process.exitCode = failed > 0 ? 1 : 0
}

/** @param lane which of how many run side by side, so that each has ports of its own */
async function runMocha(stdout, lane, args) {
  const directory = mkdtempSync(join(tmpdir(), 'redismutex-'))
  const file = join(directory, 'summary')
  const child = spawn(installed('mocha'), args, {
    cwd: root,
    stdio: ['ignore', stdout, stdout],
    env: { ...process.env, [SUMMARY]: file, REDISMUTEX_TEST_BESIDE_OTHERS: lane },
    shell: process.platform === 'win32',
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (text) => {
      output += text
    })
  }
  const [code] = await once(child, 'close')
  const summary = existsSync(file) ? readFileSync(file, 'utf8') : ''
  rmSync(directory, { recursive: true })
  return { output, code, summary }
}
