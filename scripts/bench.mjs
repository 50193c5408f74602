// Runs the benchmark: finds or installs Redis, builds the packages and the benchmark, then starts it.

import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { needRedis } from './redis.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))

needRedis()
run(join(root, 'node_modules', '.bin', 'tsc'), ['-b', 'test/bench'])
// Not under tsx: what is measured is what users get.
run(process.execPath, ['test/bench/dist/bench/src/main.js', ...process.argv.slice(2)])

/** Ends with it if it fails. */
function run(program, args) {
  const { status, signal, error } = spawnSync(program, args, {
    cwd: root,
    stdio: 'inherit',
    shell: process.platform === 'win32',
  })
  if (error) throw error
  if (signal) process.kill(process.pid, signal)
  if (status !== 0) process.exit(status ?? 1)
}
