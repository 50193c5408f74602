// Sees to it that there is a redis-server.

import { spawnSync } from 'node:child_process'
import { accessSync, constants, existsSync, rmSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'

/** Finds redis-server or installs it; ends the process where neither can be done. */
export function needRedis() {
  if (hasRedis()) return
  if (!process.env.REDIS_SERVER) installRedis()
  if (hasRedis()) return
  console.error('The tests need redis-server: install Redis, or name the program in REDIS_SERVER.')
  process.exit(1)
}

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
