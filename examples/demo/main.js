// What the lock does, shown on two real servers. All that is printed was measured just before, and
// the exit code is 1 if any of it is not as it should be.
import { WORK } from './accounts.js'
import { manyUsers, withLock, withoutLock } from './acts.js'
import { warmUp } from './load.js'
import { conclude, say } from './screen.js'
import { startHere, startProcesses } from './servers.js'

const { REDIS_URL } = process.env

try {
  const stage = REDIS_URL ? await startProcesses(REDIS_URL) : await startHere()
  try {
    introduce()
    await warmUp(stage.urls, 20)
    for (const act of [withoutLock, withLock, manyUsers]) await act(stage)
  } finally {
    await stage.close()
  }
  conclude()
  sayMore()
} catch (error) {
  console.error(`\n${error instanceof Error ? error.message : error}`)
  process.exit(1) // Whatever has been started ends with this process.
}

function introduce() {
  const where = REDIS_URL ? 'two processes that share a Redis' : 'one process'
  say(
    '',
    `Two web servers, one Express and one Fastify, run in ${where}.`,
    `To withdraw money, they read the balance, work for ${WORK} ms, and write what is left.`,
    '',
    'Below, a line is a request. From left to right: ░ it waits, █ it is at work.',
  )
}

function sayMore() {
  say('', 'Apps to copy from are in the folder examples.')
  if (!REDIS_URL) {
    say('To have each server in a process of its own, start a Redis and set its address:', '')
    say('  REDIS_URL=redis://127.0.0.1:6379 npx -y pnpm@12 demo')
  }
}
