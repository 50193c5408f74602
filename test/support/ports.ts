import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:net'

/** Which of how many runs of tests side by side this is. */
const [LANE = 0, LANES = 1] = (process.env.REDISMUTEX_TEST_BESIDE_OTHERS ?? '0/1')
  .split('/')
  .map(Number)

const SHARE = Math.floor(10_000 / LANES)
const FIRST = 10_000 + LANE * SHARE

const given = new Set<number>()

/**
 * A port of the loopback interface that nobody listens on just now, and that is given once. It is
 * below the range that systems give to outgoing connections, and none that a run beside this one is
 * given, so that it can be listened on again after a restart; and so is its Cluster bus port (10,000
 * above).
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = FIRST + randomInt(SHARE)
    if (given.has(port)) continue
    given.add(port)
    if (await isFree(port)) return port
  }
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer()
  try {
    server.listen(port, '127.0.0.1')
    await once(server, 'listening')
  } catch {
    return false
  }
  server.close()
  await once(server, 'close')
  return true
}
