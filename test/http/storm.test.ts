import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { allFrameworks, ask, type Context, PATIENCE, stores, until } from './harness.js'
import { request, WireClient } from './wire.js'

/** Numbers that only seem to be random: a run can be had again by its seed. */
function randoms(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

const SEED = Number(process.env.REDISMUTEX_TEST_SEED ?? Date.now() % 1_000_000)
const CONNECTIONS = 60
const USERS = ['ann', 'bob', 'cat']

/** What handlers do, for a time. */
const deeds: ((context: Context, ms: number) => unknown)[] = [
  ({ send }) => send('at once'),
  async ({ send }, ms) => {
    await sleep(ms)
    send('later')
  },
  async ({ send }, ms) => {
    send('early')
    await sleep(ms)
  },
  ({ send }, ms) => {
    setTimeout(() => send('by callback'), ms)
  },
  async ({ takeOver }, ms) => {
    const res = takeOver()
    res.write('half')
    await sleep(ms)
    res.end('whole')
    res.end()
  },
  async ({ lock, takeOver }) => {
    const res = takeOver()
    Readable.from(['a', 'b', 'c']).pipe(res)
    await new Promise((resolve) => {
      res.on('close', resolve).on('finish', resolve)
      // A response that is queued behind another one on its connection hears nothing else.
      if (lock?.signal.aborted) resolve(undefined)
      lock?.signal.addEventListener('abort', resolve)
    })
  },
  async ({ lock, send }, ms) => {
    await lock?.release()
    await sleep(ms)
    send('released')
  },
  async ({ req, lock, send }, ms) => {
    lock?.signal.addEventListener('abort', () => {})
    await sleep(ms)
    if (req.socket.destroyed) return
    send('unless gone')
  },
  async ({ takeOver }, ms) => {
    const res = takeOver()
    res.end('x'.repeat(300_000))
    await sleep(ms)
  },
]

/** What Express 4 by itself does not forgive. */
const failures: typeof deeds = [
  async (_context, ms) => {
    await sleep(ms)
    throw new Error('rejected')
  },
  () => {
    throw new Error('thrown')
  },
  async ({ send }, ms) => {
    send('early')
    await sleep(ms)
    throw new Error('late')
  },
]

for (const { name, setup } of stores) {
  for (const framework of allFrameworks) {
    for (const awaitRelease of [false, true]) {
      const how = `${framework.name}, ${name}${awaitRelease ? ', last bytes waiting' : ''}`
      it(`a storm of clients leaves nothing behind in ${how} (seed ${SEED})`, async () => {
        const random = randoms(SEED)
        const choice = framework.seesHandlers ? [...deeds, ...failures] : deeds
        const inside = new Set<Context>()
        const clashes: string[] = []
        let calm = false
        const options = { ...setup(), awaitRelease, blockTime: 5000, lease: 1000 }
        const app = await framework.start(options, async (context) => {
          const user = String(context.req.headers['x-user'])
          if (calm) {
            context.send('calm')
            return
          }
          const deed = choice[Math.floor(random() * choice.length)]
          for (const { req, lock } of inside) {
            // Who has released, or has been released at the end of its response, may work on.
            if (req.headers['x-user'] === user && lock?.key) clashes.push(`two at once for ${user}`)
          }
          inside.add(context)
          try {
            await deed?.(context, random() * 8)
          } finally {
            inside.delete(context)
          }
        })
        const visit = async () => {
          await sleep(random() * 100)
          const client = await WireClient.connect(app.port)
          const user = USERS[Math.floor(random() * USERS.length)] as string
          const count = 1 + Math.floor(random() * 3)
          client.write(
            Array.from({ length: count }, () => request(user, 'POST /', 'a body')).join(''),
          )
          if (random() < 0.1)
            client.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx')
          if (random() < 0.3) client.pause()
          await sleep(random() * 60)
          client.leave(random() < 0.5)
        }
        await Promise.all(Array.from({ length: CONNECTIONS }, visit))
        const idle = () => app.mutex.stats().held === 0 && app.mutex.stats().waiting === 0
        await until(idle, `the end of the storm: ${JSON.stringify(app.mutex.stats())}`)
        expect(clashes).to.deep.equal([])
        // Plain handlers that leave a client without an answer end by their lease.
        if (framework.seesHandlers) expect(app.mutex.stats().lost).to.equal(0)
        const { redis, keyPrefix } = options
        if (redis) {
          const names = USERS.map((user) => `${keyPrefix}${user}`)
          const deadline = performance.now() + PATIENCE
          // The last release is on its way when nothing is held any more.
          while (performance.now() < deadline && (await redis.exists(names)) > 0) await sleep(2)
          expect(await redis.exists(names)).to.equal(0)
        }
        calm = true
        for (const user of USERS) {
          expect(await ask(app.url, user)).to.include({ status: 200, text: 'calm' })
        }
      })
    }
  }
}
