// Runs the chaos suite: finds or installs Redis, then starts it with the packages from their sources.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { needRedis } from './redis.mjs'

needRedis()
const child = spawn(
  process.execPath,
  [
    '--no-experimental-require-module',
    '--import=tsx',
    '--conditions=@redismutex/source',
    fileURLToPath(new URL('../test/chaos/main.ts', import.meta.url)),
    ...process.argv.slice(2),
  ],
  { stdio: 'inherit' },
)
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal))
const [code] = await once(child, 'exit')
process.exitCode = code ?? 1
