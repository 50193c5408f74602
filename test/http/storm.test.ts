import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { expect } from 'chai'
import { Core } from '../../packages/core/src/core.js'
import {
  allFrameworks,
  ask,
  type Context,
  PATIENCE,
  type RunningApp,
  type redis,
  stores,
  until,
} from './harness.js'
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

/** For a wait among all of them, in ms. */
const LONG = 50_000
const SEED = Number(process.env.REDISMUTEX_TEST_SEED ?? Date.now() % 1_000_000)
const USERS = Array.from({ length: 20 }, (_, i) => `user-${i}`)
/** How many connections are open at a time. */
const CROWD = 100

/** A handler at work, whether its client is still there or not. */
class Visit {
  /** Has it given the lock back by itself? */
  released = false
  /** Does it work on by callbacks, of which nobody knows? It says itself when it is done. */
  hidden = false

  constructor(
    readonly context: Context,
    readonly user: string,
    readonly done: () => void,
  ) {}
}

/** What handlers do, for a time. */
const deeds: ((visit: Visit, ms: number) => unknown)[] = [
  ({ context }) => context.send('at once'),
  async ({ context }, ms) => {
    await sleep(ms)
    context.send('later')
  },
  async ({ context }, ms) => {
    context.send('early')
    await sleep(ms)
  },
  (visit, ms) => {
    visit.hidden = true
    setTimeout(() => {
      visit.done()
      visit.context.send('by callback')
    }, ms)
  },
  async ({ context }, ms) => {
    const res = context.takeOver()
    res.write('half')
    await sleep(ms)
    res.end('whole')
    res.end()
  },
  async ({ context }) => {
    const { lock } = context
    const res = context.takeOver()
    Readable.from(['a', 'b', 'c']).pipe(res)
    await new Promise((resolve) => {
      res.on('close', resolve).on('finish', resolve)
      // A response that is queued behind another one on its connection hears nothing else.
      if (lock?.signal.aborted) resolve(undefined)
      lock?.signal.addEventListener('abort', resolve)
    })
  },
  async (visit, ms) => {
    visit.released = true
    await visit.context.lock?.release()
    await sleep(ms)
    visit.context.send('released')
  },
  async ({ context }, ms) => {
    context.lock?.signal.addEventListener('abort', () => {})
    await sleep(ms)
    if (context.req.socket.destroyed) return
    context.send('unless gone')
  },
  async ({ context }, ms) => {
    const res = context.takeOver()
    res.end('x'.repeat(300_000))
    await sleep(ms)
  },
]

/** What Express 4 by itself does not forgive. */
const failures: typeof deeds = [
  async (_visit, ms) => {
    await sleep(ms)
    throw new Error('rejected')
  },
  () => {
    throw new Error('thrown')
  },
  async ({ context }, ms) => {
    context.send('early')
    await sleep(ms)
    throw new Error('late')
  },
]

/** What would show that something was left behind. */
function leftovers(app: RunningApp, client: ReturnType<typeof redis> | undefined) {
  const listeners = (emitter: NodeJS.EventEmitter) =>
    emitter.eventNames().reduce((sum, name) => sum + emitter.listenerCount(name), 0)
  return {
    timers: process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length,
    'listeners of the process': listeners(process),
    'listeners of the server': listeners(app.server),
    'listeners of the Redis client': client ? listeners(client) : 0,
    'lines of keys': Core.of(app.mutex.store).lines.size,
  }
}

async function noConnections({ server }: RunningApp): Promise<void> {
  const connections = promisify(server.getConnections.bind(server))
  const deadline = performance.now() + PATIENCE
  while ((await connections()) > 0) {
    if (performance.now() > deadline) throw new Error('the server keeps connections')
    await sleep(2)
  }
}

/** The keys of Redis that hold or queue: all that begin so, but for fences, which expire. */
async function keysOf(client: ReturnType<typeof redis>, keyPrefix: string): Promise<string[]> {
  const keys = await client.keys(`*${keyPrefix}*`)
  return keys.filter((key) => !key.startsWith('redismutex:fence:'))
}

for (const { name, setup } of stores) {
  for (const framework of allFrameworks) {
    for (const awaitRelease of [false, true]) {
      // In full where handlers differ most; the rest is of the same code.
      const full = !awaitRelease && ['Express 5', 'Fastify'].includes(framework.name)
      const count = full ? 2000 : 300
      const how = `${framework.name}, ${name}${awaitRelease ? ', last bytes waiting' : ''}`
      it(`a storm of ${count} requests, half of them cut, leaves nothing behind in ${how} (seed ${SEED})`, async function () {
        this.timeout(60_000)
        const random = randoms(SEED)
        const any = <T>(choice: readonly T[]): T =>
          choice[Math.floor(random() * choice.length)] as T
        const choice = framework.seesHandlers ? [...deeds, ...failures] : deeds
        const inside = new Set<Visit>()
        const clashes: string[] = []
        let calm = false
        const options = {
          ...setup(),
          awaitRelease,
          blockTime: LONG,
          maxWaiting: count,
          lease: 1000,
        }
        const app = await framework.start(options, (context) => {
          if (calm) {
            context.send('calm')
            return undefined
          }
          if (!context.lock) {
            context.send('nobody')
            return undefined
          }
          const user = String(context.req.headers['x-user'])
          const visit = new Visit(context, user, () => inside.delete(visit))
          for (const { user, released, context } of inside) {
            // Plain handlers may go on when their response has ended, and with it their lock.
            const over = framework.seesHandlers ? released : context.lock?.key === null
            if (user === visit.user && !over) clashes.push(`two at once for ${user}`)
          }
          inside.add(visit)
          let result: unknown
          try {
            result = any(choice)(visit, random() * 5)
          } catch (error) {
            visit.done()
            throw error
          }
          // Before anybody else hears of it.
          if (result instanceof Promise) result.then(visit.done, visit.done)
          else if (!visit.hidden) visit.done()
          return result
        })
        await until(() => app.server.listening, 'the server')
        const before = leftovers(app, options.redis)

        const visits: { cut: boolean; requests: number }[] = []
        for (const cut of [true, false]) {
          for (let left = count / 2; left > 0; ) {
            const requests = Math.min(left, 1 + Math.floor(random() * 4))
            visits.push({ cut, requests })
            left -= requests
          }
        }
        visits.sort(() => random() - 0.5)
        let answered = 0

        async function visit({ cut, requests }: (typeof visits)[number]): Promise<void> {
          const client = await WireClient.connect(app.port)
          const user = any(USERS)
          client.write(
            Array.from({ length: requests }, () => request(user, 'POST /', 'a body')).join(''),
          )
          if (!cut) {
            // A handler that fails late has Express close the connection.
            while (!(client.closed && client.pending === '') && requests-- > 0) {
              const answer = await client.answer(false, LONG).catch(() => undefined)
              if (!answer) break
              expect(answer.status).to.be.oneOf([200, 500])
              answered++
            }
            client.leave()
            return
          }
          if (random() < 0.1) {
            client.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx')
          }
          if (random() < 0.3) client.pause()
          await sleep(random() * 60)
          client.leave(random() < 0.5)
        }

        await Promise.all(
          Array.from({ length: CROWD }, async () => {
            for (let next = visits.pop(); next; next = visits.pop()) await visit(next)
          }),
        )
        // The server takes connections in the order in which they came: by now it has them all. When the
        // last is closed no request can come any more, not even one whose client has left long ago.
        const last = await WireClient.connect(app.port)
        last.write(request('nobody', 'GET /'))
        expect((await last.answer()).status).to.equal(200)
        last.leave()
        await noConnections(app)
        const idle = () => app.mutex.stats().held === 0 && app.mutex.stats().waiting === 0
        await until(idle, 'the end of the storm')
        await until(() => inside.size === 0, 'the last handler')
        expect(clashes).to.deep.equal([])
        expect(answered).to.be.greaterThan(count / 4)
        // Plain handlers that leave a client without an answer end by their lease.
        if (framework.seesHandlers) expect(app.mutex.stats().lost).to.equal(0)
        expect(app.mutex.stats().storeErrors).to.equal(0)
        const { redis: client, keyPrefix } = options
        if (client && keyPrefix) {
          const deadline = performance.now() + PATIENCE
          // The last release is on its way when nothing is held any more.
          let left = await keysOf(client, keyPrefix)
          while (performance.now() < deadline && left.length > 0) {
            await sleep(2)
            left = await keysOf(client, keyPrefix)
          }
          expect(left).to.deep.equal([])
        }
        await until(
          () => {
            const after = Object.entries(leftovers(app, client))
            return after.every(([what, left]) => left <= before[what as keyof typeof before])
          },
          `nothing more left than ${JSON.stringify(before)}`,
        )
        for (const user of USERS) {
          const lock = await app.mutex.tryAcquire(user)
          expect(lock, `the lock of ${user}`).to.not.equal(null)
          await lock?.release()
        }
        calm = true
        expect(await ask(app.url, any(USERS))).to.include({ status: 200, text: 'calm' })
      })
    }
  }
}
