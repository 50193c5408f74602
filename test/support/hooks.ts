import type { Runner } from 'mocha'
import { beginTest, endRun, endTest } from './cleanup.js'
import { SHARED_REDIS, startRedis } from './redis.js'
import { watchStrays } from './strays.js'

/** How long the process may take to end by itself after the last test. */
const EXIT_TIMEOUT = Number(process.env.REDISMUTEX_TEST_EXIT_TIMEOUT ?? 10_000)

let stopRedis: (() => Promise<void>) | undefined

export async function mochaGlobalSetup(this: Runner): Promise<void> {
  watchStrays(this)
  if (process.env[SHARED_REDIS]) return
  const server = await startRedis()
  stopRedis = () => server.stop()
  process.env[SHARED_REDIS] = server.url
}

export async function mochaGlobalTeardown(this: Runner): Promise<void> {
  await endRun()
  await stopRedis?.()
  // Not a reason to stay alive itself: it only fires when something else keeps the process running.
  setTimeout(() => {
    const kept = process.getActiveResourcesInfo().join(', ')
    console.error(`\nStill running ${EXIT_TIMEOUT} ms after the last test, kept alive by: ${kept}`)
    process.exit(1)
  }, EXIT_TIMEOUT).unref()
}

export const mochaHooks: Mocha.RootHookObject = {
  beforeEach: beginTest,
  afterEach: endTest,
}
