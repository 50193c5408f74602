// Runs the tests: finds or installs Redis, builds the packages, then starts Mocha.
// Arguments go to Mocha, like the names of test files; --coverage, if it comes first, measures.

import { spawnSync } from 'node:child_process'
import { accessSync, constants, existsSync, rmSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
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
run(...(coverage ? ['c8', ['mocha', ...args]] : ['mocha', args]))

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
