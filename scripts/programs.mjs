// What the scripts start of the workspace's own programs.

import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('..', import.meta.url))

/** Where the workspace has a program that it has installed. */
export const installed = (name) => join(root, 'node_modules', '.bin', name)

/** Runs a program; ends this process with it if it fails. */
export function run(program, args) {
  const { status, signal, error } = spawnSync(program, args, {
    cwd: root,
    stdio: 'inherit',
    shell: process.platform === 'win32',
  })
  if (error) throw error
  if (signal) process.kill(process.pid, signal)
  if (status !== 0) process.exit(status ?? 1)
}
