// Runs the benchmark: finds or installs Redis, builds the packages and the benchmark, then starts it.

import { installed, run } from './programs.mjs'
import { needRedis } from './redis.mjs'

needRedis()
run(installed('tsc'), ['-b', 'test/bench'])
// Not under tsx: what is measured is what users get.
run(process.execPath, ['test/bench/dist/bench/src/main.js', ...process.argv.slice(2)])
