import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { arch, availableParallelism, cpus, platform, totalmem } from 'node:os'
import { dirname, join } from 'node:path'
import { findRedisServer } from '../../../support/redis.js'

const packages = [
  ...['ioredis', 'redis-semaphore', 'redlock', 'redlock-universal', 'simple-redis-mutex'],
  ...['redis', 'async-mutex', 'express', 'fastify', 'autocannon'],
]

/** What it ran on, in a line each. */
export function environment(): string[] {
  const model = cpus()[0]?.model.trim() || 'unknown processor'
  const memory = Math.round(totalmem() / 2 ** 30)
  return [
    `${availableParallelism()} cores (${model}), ${memory} GB, ${platform()} ${arch()}`,
    `Node.js ${process.versions.node}, Redis ${redisVersion()}, on the loopback interface`,
    packages.map((name) => `${name} ${versionOf(name)}`).join(', '),
  ]
}

function redisVersion(): string {
  const said = execFileSync(findRedisServer(), ['--version'], { encoding: 'utf8' })
  return /v=(\S+)/.exec(said)?.[1] ?? said.trim()
}

/** Packages need not let anybody read their manifest, so it is looked for above what they export. */
function versionOf(name: string): string {
  const { resolve } = createRequire(import.meta.url)
  for (let folder = dirname(resolve(name)); folder !== dirname(folder); folder = dirname(folder)) {
    try {
      const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
      if (manifest.name === name) return String(manifest.version).replace(/^v/, '')
    } catch {}
  }
  return '(unknown)'
}
