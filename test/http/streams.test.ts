import { once } from 'node:events'
import { createServer } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { memoryStore } from '@redismutex/core'
import { requestLock } from '@redismutex/express'
import fastifyLock from '@redismutex/fastify'
import { expect } from 'chai'
import express5 from 'express'
import express4 from 'express4'
import fastify from 'fastify'
import { freshPrefix } from '../support/redis.js'
import {
  allFrameworks,
  ask,
  byUser,
  type Context,
  frameworks,
  type RunningApp,
  redis,
  running,
  Signal,
  stores,
  until,
} from './harness.js'
import { request, WireClient } from './wire.js'

/** Sends events until its client has left. */
async function events({ lock, takeOver }: Context, release = false): Promise<void> {
  const gone = new Promise((resolve) => lock?.signal.addEventListener('abort', resolve))
  const res = takeOver()
  res.once('close', () => {})
  res.writeHead(200, { 'Content-Type': 'text/event-stream' })
  res.write('data: 1\n\n')
  if (release) await lock?.release()
  const left = release ? once(res, 'close') : gone
  await left
  res.end()
}

/** Answers by taking the connection for another protocol, as long as that lives. */
async function upgraded({ lock, takeOver }: Context, release = false): Promise<void> {
  const { socket } = takeOver()
  if (!socket) throw new Error('the response is queued')
  const closed = once(socket, 'close')
  socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n')
  if (release) await lock?.release()
  await closed
}

for (const { name, setup } of stores) {
  for (const framework of allFrameworks) {
    describe(`What lives long in ${framework.name}, ${name}`, () => {
      for (const [what, first, work] of [
        ['server-sent events', 'data: 1', events],
        ['an upgraded connection', '101 Switching', upgraded],
      ] as const) {
        it(`is held for: ${what}, until the client has left`, async () => {
          const options = { ...setup(), lease: 500 }
          const app = await framework.start(options, (context) =>
            context.req.url === '/live' ? work(context) : context.send('done'),
          )
          const client = await WireClient.connect(app.port)
          client.write(request('ann', 'POST /live'))
          await until(() => client.pending.includes(first), 'the beginning')
          const next = ask(app.url, 'ann')
          await until(() => app.mutex.stats().waiting === 1, 'the next one in line')
          expect(app.mutex.stats().held).to.equal(1)
          client.leave()
          expect(await next).to.include({ status: 200, text: 'done' })
          await until(() => app.mutex.stats().held === 0, 'the release')
          // Of a plain handler that took the connection nobody knows when it is done.
          const unseen = !framework.seesHandlers && work === upgraded
          expect(app.mutex.stats().lost).to.equal(unseen ? 1 : 0)
        })

        it(`goes on without a lock that it has released: ${what}`, async () => {
          const app = await framework.start(setup(), (context) =>
            context.req.url === '/live' ? work(context, true) : context.send('done'),
          )
          const client = await WireClient.connect(app.port)
          client.write(request('ann', 'POST /live'))
          await until(() => client.pending.includes(first), 'the beginning')
          expect(await ask(app.url, 'ann')).to.include({ status: 200, text: 'done' })
          expect(client.closed).to.equal(false)
          client.leave()
          await until(() => app.mutex.stats().held === 0, 'the release')
          expect(app.mutex.stats().lost).to.equal(0)
        })
      }

      it('is an ordinary request if it asks for an upgrade that the server does not offer', async () => {
        const app = await framework.start(setup(), ({ lock, send }) => send(lock?.key))
        const client = await WireClient.connect(app.port)
        client.write(
          'POST / HTTP/1.1\r\nHost: a\r\nx-user: ann\r\nContent-Length: 0\r\n' +
            'Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
        )
        expect(await client.answer()).to.include({ status: 200, body: 'ann' })
        await until(() => app.mutex.stats().held === 0, 'the release')
        expect(app.mutex.stats()).to.include({ acquired: 1, lost: 0 })
      })

      it('needs no lock where the server itself takes the connection', async () => {
        const app = await framework.start(setup(), ({ send }) => send('done'))
        app.server.on('upgrade', (_req, socket) => {
          socket.end('HTTP/1.1 101 Switching Protocols\r\nContent-Length: 0\r\n\r\n')
        })
        const client = await WireClient.connect(app.port)
        client.write(
          'POST / HTTP/1.1\r\nHost: a\r\nx-user: ann\r\nContent-Length: 0\r\n' +
            'Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
        )
        await until(() => client.pending.includes('101 Switching'), 'the upgrade')
        expect(app.mutex.stats()).to.include({ acquired: 0, waiting: 0 })
        expect((await ask(app.url, 'ann')).text).to.equal('done')
      })

      it('is cut by the timeout of the server like a client that leaves', async () => {
        const gone = new Signal()
        const go = new Signal()
        const ran: string[] = []
        const app = await framework.start(setup(), async ({ req, lock, send }) => {
          ran.push(String(req.url))
          if (req.url === '/slow') {
            lock?.signal.addEventListener('abort', () => gone.fire())
            await go.promise
          }
          send('done')
        })
        app.server.setTimeout(100)
        const slow = await WireClient.connect(app.port)
        slow.request('ann', 'POST /slow')
        await until(() => app.mutex.stats().held === 1, 'the slow one')
        const waiting = await WireClient.connect(app.port)
        waiting.request('ann', 'POST /waiting')
        await gone.wait('the signal')
        await slow.end()
        await waiting.end()
        await until(() => app.mutex.stats().waiting === 0, 'the place given up')
        expect(app.mutex.stats().held).to.equal(1)
        app.server.setTimeout(0)
        const next = ask(`${app.url}/next`, 'ann')
        await until(() => app.mutex.stats().waiting === 1, 'the next one in line')
        go.fire()
        expect((await next).status).to.equal(200)
        expect(ran).to.deep.equal(['/slow', '/next'])
      })
    })
  }

  for (const framework of frameworks) {
    describe(`Several keys in ${framework.name}, ${name}`, () => {
      it('let transfers between two accounts, both ways and on two servers, lose nothing', async () => {
        const shared = name === 'memory' ? { store: memoryStore() } : undefined
        const keyPrefix = freshPrefix()
        const balances = new Map([...'abcd'].map((account) => [account, 100]))
        const transfer = async ({ req, lock, send }: Context) => {
          const [, from = '', to = ''] = String(req.url).split('/')
          expect(lock?.keys).to.have.members([from, to])
          const [one, other] = [balances.get(from) ?? 0, balances.get(to) ?? 0]
          await sleep(1)
          balances.set(from, one - 1)
          balances.set(to, other + 1)
          send('done')
        }
        const keyFrom = ({ url }: { url: string }) => url.split('/').slice(1)
        const apps: RunningApp[] = []
        for (let i = 0; i < 2; i++) {
          const where = shared ?? { redis: redis(), keyPrefix }
          const options = { ...where, keyFrom, blockTime: 20_000, maxWaiting: 100 }
          apps.push(await framework.start(options, transfer))
        }
        const pairs = ['a/b', 'b/a', 'b/c', 'c/d', 'd/a', 'a/c']
        const answers = await Promise.all(
          Array.from({ length: 90 }, (_, i) =>
            ask(`${apps[i % 2]?.url}/${pairs[i % pairs.length]}`, undefined),
          ),
        )
        for (const { status } of answers) expect(status).to.equal(200)
        // 15 of each: a gave 30 and got 30, and so on.
        expect(Object.fromEntries(balances)).to.deep.equal({ a: 100, b: 85, c: 115, d: 100 })
        for (const { mutex } of apps) {
          await until(() => mutex.stats().held === 0, 'the releases')
        }
      })
    })
  }
}

/** Gives up requests that have not come within a second, and looks every 20 ms. */
const hasty = { requestTimeout: 1000, connectionsCheckingInterval: 20 }

const servers: Record<string, (go: Promise<unknown>) => Promise<RunningApp>> = {
  'Express 5': (go) => hastyExpress(express5, go),
  'Express 4': (go) => hastyExpress(express4 as unknown as typeof express5, go),
  Fastify: async (go) => {
    const app = fastify({ requestTimeout: hasty.requestTimeout, http: hasty })
    await app.register(fastifyLock, { store: memoryStore(), keyFrom: byUser, blockTime: 20_000 })
    app.post('/', async (request) => {
      await go
      return request.body
    })
    await app.listen({ port: 0, host: '127.0.0.1' })
    return running(app.server, app.mutex, () => app.close())
  },
}

function hastyExpress(express: typeof express5, go: Promise<unknown>): Promise<RunningApp> {
  const lock = requestLock({ store: memoryStore(), keyFrom: byUser, blockTime: 20_000 })
  const app = express()
  app.post('/', express.json(), lock, async (req, res) => {
    await go
    res.json(req.body)
  })
  return running(createServer(hasty, app).listen(0, '127.0.0.1'), lock.mutex, () => lock.close())
}

describe('The wait for a lock', () => {
  for (const [name, start] of Object.entries(servers)) {
    it(`does not count against the requestTimeout of the server: ${name}`, async () => {
      const go = new Signal()
      const app = await start(go.promise)
      const body = '{"a":1}'
      const clients: WireClient[] = []
      for (let i = 0; i < 2; i++) {
        const client = await WireClient.connect(app.port)
        clients.push(client)
        // In one piece, so that it has come as soon as it begins to.
        client.write(
          `POST / HTTP/1.1\r\nHost: a\r\nX-User: ann\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
        )
      }
      await until(() => app.mutex.stats().waiting === 1, 'the second in line')
      await sleep(1.5 * hasty.requestTimeout)
      go.fire()
      for (const client of clients) expect(await client.answer()).to.include({ status: 200, body })
    })
  }
})
