// Runs the tests: finds or installs Redis, builds the packages, then starts Mocha.
// Arguments go to Mocha, like the names of test files; --coverage, if it comes first, measures.

import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  accessSync,
  constants,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
/** Where the test reporter writes its summary, and whoever starts this one may want it. */
const SUMMARY = 'REDISMUTEX_TEST_SUMMARY'
const args = process.argv.slice(2)
const coverage = args[0] === '--coverage'
if (coverage) args.shift()

if (!hasRedis()) {
  if (!process.env.REDIS_SERVER) installRedis()
  if (!hasRedis()) {
    console.error(
      'The tests need redis-server: install Redis, or name the program in REDIS_SERVER.',
    )
    process.exit(1)
  }
}
run('tsc', ['-b', 'packages/core', 'packages/express', 'packages/fastify'])
if (coverage) run('c8', ['mocha', ...args])
else if (args.length > 0) run('mocha', args)
else await runEverything()

function hasRedis() {
  return process.env.REDIS_SERVER ? isExecutable(process.env.REDIS_SERVER) : inPath('redis-server')
}

function installRedis() {
  if (process.platform === 'darwin' && inPath('brew')) {
    attempt('brew', ['install', 'redis'])
  } else if (inPath('apt-get') && process.getuid?.() === 0) {
    withoutStartingServices(() => {
      attempt('apt-get', ['update'])
      attempt('apt-get', ['install', '-y', '--no-install-recommends', 'redis-server'])
    })
  }
}

/** Debian starts a service that it installs, unless this program says no. */
function withoutStartingServices(install) {
  const policy = '/usr/sbin/policy-rc.d'
  if (existsSync(policy)) return install()
  writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 })
  try {
    install()
  } finally {
    rmSync(policy)
  }
}

function attempt(command, args) {
  console.log(`$ ${command} ${args.join(' ')}`)
  return spawnSync(command, args, {
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  })
}

/**
 * Runs all tests in processes side by side: those that wait most of the time, for leases, for other
 * processes and for whole deployments, and the others. Prints one after the other, and the sum of
 * all at the end.
 */
async function runEverything() {
  const waiting = [
    ['processes', 'faults', 'examples', 'packaging', 'runner'],
    ['deployments', 'quorum'],
  ]
  const runs = await Promise.all([
    runMocha('inherit', ...waiting.flat().map((name) => `--ignore=test/${name}/**`)),
    ...waiting.map((names) => runMocha('pipe', ...names.map((name) => `test/${name}`))),
  ])
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

async function runMocha(stdout, ...args) {
  const directory = mkdtempSync(join(tmpdir(), 'redismutex-'))
  const file = join(directory, 'summary')
  const child = spawn(join(root, 'node_modules', '.bin', 'mocha'), args, {
    cwd: root,
    stdio: ['ignore', stdout, stdout],
    env: { ...process.env, [SUMMARY]: file },
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

/** Runs a program of the workspace; ends with it if it fails. */
function run(name, args) {
  const program = join(root, 'node_modules', '.bin', name)
  const { status, signal, error } = spawnSync(program, args, {
    cwd: root,
    stdio: 'inherit',
    shell: process.platform === 'win32',
  })
  if (error) throw error
  if (signal) process.kill(process.pid, signal)
  if (status !== 0) process.exit(status ?? 1)
}

function inPath(name) {
  return (process.env.PATH ?? '').split(delimiter).some((path) => isExecutable(join(path, name)))
}

function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK)
    return true
  } catch {
    return false
  }
}
