import { fork } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { Accounts } from './accounts.js'
import { connect } from './redis.js'
import { startServer } from './server.js'

const NAMES = ['express', 'fastify']

/** Both servers in this process, which is all that they share. */
export async function startHere() {
  const accounts = new Accounts(undefined, 'here')
  const servers = await Promise.all(NAMES.map((name) => startServer(name, accounts)))
  return stage(accounts, servers)
}

/** Each server in a process of its own; they share a Redis and nothing else. */
export async function startProcesses(redisUrl) {
  const redis = await connect(redisUrl)
  const run = randomUUID()
  const accounts = new Accounts(redis, run)
  const servers = await Promise.all(NAMES.map((name) => startProcess(name, run)))
  return stage(accounts, servers, redis)
}

function stage(accounts, servers, redis) {
  return {
    accounts,
    urls: servers.map((server) => server.url),
    async close() {
      await Promise.all(servers.map((server) => server.close()))
      await redis?.quit()
    },
  }
}

async function startProcess(name, run) {
  const child = fork(new URL('./process.js', import.meta.url), [name, run])
  const exited = once(child, 'exit')
  const failed = exited.then(([code]) => {
    throw new Error(`The ${name} server ended before it listened, with code ${code}.`)
  })
  const [url] = await Promise.race([once(child, 'message'), failed])
  failed.catch(() => {})
  return {
    url,
    async close() {
      child.disconnect()
      await exited
    },
  }
}
