import { readFileSync } from 'node:fs'
import { Agent, request as httpRequest, type ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { MutexStoreError, memoryStore } from '@redismutex/core'
import { requestLock } from '@redismutex/express'
import { expect } from 'chai'
import express5 from 'express'
import express4 from 'express4'
import { atEnd } from '../support/cleanup.js'
import { startProxy } from '../support/proxy.js'
import { freshPrefix, sharedRedis } from '../support/redis.js'
import {
  allFrameworks,
  ask,
  byUser,
  type Context,
  type Framework,
  frameworks,
  type RunningApp,
  redis,
  running,
  Signal,
  until,
} from './harness.js'
import { WireClient } from './wire.js'

/** A client of the run's Redis, and the network between. */
async function throughProxy() {
  const proxy = await startProxy(sharedRedis().port)
  const client = redis(proxy.port)
  await client.ping()
  return { redis: client, proxy }
}

/** A client of the run's Redis that is this far away. */
async function distant(ms: number) {
  const { redis, proxy } = await throughProxy()
  proxy.delay(ms)
  return redis
}

/** Two servers of one app, of which the first is farther from Redis. */
async function pair(
  framework: Framework,
  distance: number,
  options: object,
  handler: (context: Context) => unknown,
) {
  const keyPrefix = freshPrefix()
  const apps: RunningApp[] = []
  for (const ms of [distance, 0]) {
    const setup = { redis: await distant(ms), keyPrefix, ...options }
    apps.push(await framework.start(setup, handler))
  }
  return apps
}

/** Asks the servers in turn over connections that are kept, each time as soon as it has an answer. */
async function inTurn(
  apps: RunningApp[],
  rounds: number,
  user = 'ann',
): Promise<Map<number, number>> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  atEnd(() => agent.destroy())
  const statuses = new Map<number, number>()
  for (let i = 0; i < rounds; i++) {
    const port = apps[i % apps.length]?.port
    const status = await new Promise<number>((resolve, reject) => {
      const headers = { 'x-user': user }
      const req = httpRequest({ port, method: 'POST', headers, agent }, (res) => {
        res.resume()
        res.on('end', () => resolve(res.statusCode ?? 0))
      })
      req.on('error', reject)
      req.end()
    })
    statuses.set(status, (statuses.get(status) ?? 0) + 1)
  }
  return statuses
}

for (const framework of allFrameworks) {
  describe(`The last bytes of an answer of ${framework.name}`, () => {
    it('wait for the release with blocking: false, so that nobody is refused by himself', async function () {
      this.timeout(60_000)
      const apps = await pair(framework, 2, { blocking: false }, async ({ send }) => {
        await sleep(0)
        send({ done: true })
      })
      // 2,000 in all: each of ten users sends the next as soon as the last is answered.
      const users = Array.from({ length: 10 }, (_, i) => `user-${i}`)
      const statuses = await Promise.all(users.map((user) => inTurn(apps, 200, user)))
      for (const counts of statuses) expect(counts).to.deep.equal(new Map([[200, 200]]))
    })

    it('wait when it is streamed in chunks: the last one', async () => {
      const apps = await pair(framework, 2, { blocking: false }, ({ takeOver }) => {
        const res = takeOver()
        res.write('half')
        res.end()
      })
      expect(await inTurn(apps, 200)).to.deep.equal(new Map([[200, 200]]))
    })

    it('wait when it is more than a socket takes at once', async () => {
      const large = 'x'.repeat(200_000)
      const apps = await pair(framework, 2, { blocking: false }, ({ send }) => send(large))
      expect(await inTurn(apps, 100)).to.deep.equal(new Map([[200, 100]]))
    })

    it('wait on one server too, over hundreds of requests', async () => {
      const setup = { redis: redis(), keyPrefix: freshPrefix(), blocking: false }
      const app = await framework.start(setup, ({ send }) => send('done'))
      expect(await inTurn([app], 300)).to.deep.equal(new Map([[200, 300]]))
    })

    /** As compression does: writes what comes with the end later, and waits for a drain. */
    function squeeze(res: ServerResponse): void {
      const { write, end } = res
      res.end = function (this: ServerResponse, body: Uint8Array) {
        const pieces = Readable.from(
          (function* () {
            for (let at = 0; at < body.length; at += 8192) yield body.subarray(at, at + 8192)
          })(),
        )
        pieces.on('data', (piece) => {
          if (write.call(this, piece, 'utf8', undefined)) return
          pieces.pause()
          this.once('drain', () => pieces.resume())
        })
        pieces.on('end', () => end.call(this, undefined, 'utf8', undefined))
        return this
      } as typeof end
    }

    it('do not keep one from ending his answer who waits for a drain before', async () => {
      const body = Buffer.alloc(1_000_000, 'x')
      const setup = { redis: redis(), keyPrefix: freshPrefix(), blocking: false, before: squeeze }
      // Fastify ends what it has in memory by itself.
      const app = await framework.start(setup, ({ takeOver }) => void takeOver().end(body))
      for (let turn = 0; turn < 3; turn++) {
        const { status, text } = await ask(app.url, 'ann')
        expect(status).to.equal(200)
        expect(text.length).to.equal(body.length)
      }
      await until(() => app.mutex.stats().held === 0, 'the release')
    })

    it('do not keep one from ending his answer who waits for a write to be done before', async () => {
      const before = (res: ServerResponse) => {
        const { write, end } = res
        res.end = function (this: ServerResponse, body: string) {
          write.call(this, body, 'utf8', () => end.call(this, undefined, 'utf8', undefined))
          return this
        } as typeof end
      }
      const setup = { redis: redis(), keyPrefix: freshPrefix(), blocking: false, before }
      const app = await framework.start(setup, ({ takeOver }) => void takeOver().end('small'))
      expect(await ask(app.url, 'ann')).to.include({ status: 200, text: 'small' })
      await until(() => app.mutex.stats().held === 0, 'the release')
    })

    for (const when of ['in the same turn', 'while its client does not read']) {
      it(`do not keep one from ending his answer who waits for all before to be sent: ${when}`, async () => {
        const slow = when !== 'in the same turn'
        const large = Buffer.alloc(slow ? 8_000_000 : 0, 'x')
        const before = (res: ServerResponse) => {
          const { write, end } = res
          let sent = Promise.resolve()
          res.write = function (this: ServerResponse, bytes: string | Uint8Array) {
            sent = new Promise((resolve) => {
              write.call(this, bytes, 'utf8', () => resolve())
            })
            return true
          } as typeof write
          res.end = function (this: ServerResponse) {
            void sent.then(() => end.call(this, undefined, 'utf8', undefined))
            return this
          } as typeof end
        }
        const setup = { redis: redis(), keyPrefix: freshPrefix(), blocking: false, before }
        const app = await framework.start(setup, async ({ takeOver }) => {
          const res = takeOver()
          if (slow) {
            client.pause()
            res.write(large)
            await sleep(50)
            setTimeout(() => client.resume(), 50)
          }
          // It waits in the socket: for its turn, or for what is on its way.
          res.write('small')
          res.end()
        })
        const client = await WireClient.connect(app.port)
        client.request('ann')
        const { body } = await client.answer()
        expect(body.length).to.equal(large.length + 'small'.length)
        await until(() => app.mutex.stats().held === 0, 'the release')
      })
    }

    it('wait where somebody sends all but one byte of a large one before he saves', async () => {
      const large = Buffer.alloc(200_000, 'x')
      const before = (res: ServerResponse) => {
        const { write, end } = res
        res.end = function (this: ServerResponse, body: string | Buffer) {
          const bytes = Buffer.from(body)
          write.call(this, bytes.subarray(1), 'utf8', undefined)
          setTimeout(() => end.call(this, bytes.subarray(0, 1), 'utf8', undefined), 2)
          return this
        } as typeof end
      }
      const apps = await pair(framework, 2, { blocking: false, before }, ({ takeOver }) => {
        void takeOver().setHeader('Content-Length', large.length).end(large)
      })
      expect(await inTurn(apps, 100)).to.deep.equal(new Map([[200, 100]]))
    })

    it('wait where somebody has wrapped the end before, who saves first', async () => {
      const { redis, proxy } = await throughProxy()
      const order: string[] = []
      const app = await framework.start(
        {
          redis,
          keyPrefix: freshPrefix(),
          blocking: false,
          // As a session does that comes before the lock.
          before(res) {
            const { end } = res
            res.end = function (this: typeof res, ...args: Parameters<typeof end>) {
              setTimeout(() => {
                order.push('saved')
                proxy.pause()
                setTimeout(() => {
                  order.push('released')
                  proxy.resume()
                }, 20)
                end.apply(this, args)
              }, 5)
              return this
            } as typeof end
          },
        },
        ({ send }) => send('done'),
      )
      expect(await ask(app.url, 'ann')).to.include({ status: 200, text: 'done' })
      expect(order).to.deep.equal(['saved', 'released'])
      await until(() => app.mutex.stats().held === 0, 'the release')
      expect(app.mutex.stats()).to.include({ lost: 0, storeErrors: 0 })
    })

    it('reach the client before a late error closes the connection', async () => {
      const setup = { redis: await distant(5), keyPrefix: freshPrefix(), awaitRelease: true }
      const app = await framework.start(setup, ({ send }) => {
        send('first')
        throw new Error('late')
      })
      expect(await ask(app.url, 'ann')).to.include({ status: 200, text: 'first' })
      await until(() => app.mutex.stats().held === 0, 'the release')
    })

    it('do not wait with awaitRelease: false, and then one is refused by himself', async () => {
      const options = { blocking: false, awaitRelease: false }
      const apps = await pair(framework, 15, options, ({ send }) => send('done'))
      expect((await inTurn(apps, 20)).get(409)).to.be.greaterThan(0)
    })

    for (const blocking of [true, false]) {
      it(`${blocking ? 'do not wait' : 'wait'} with blocking: ${blocking}`, async () => {
        const { redis, proxy } = await throughProxy()
        const setup = { redis, keyPrefix: freshPrefix(), blocking }
        let resumed = false
        const resume = () => {
          resumed = true
          proxy.resume()
        }
        const app = await framework.start(setup, ({ send }) => {
          // The release gets no farther than this.
          proxy.pause()
          // Longer than it would wait for its handler.
          if (!blocking) setTimeout(resume, 150)
          send('done')
        })
        expect(await ask(app.url, 'ann')).to.include({ status: 200, text: 'done' })
        expect(resumed).to.equal(!blocking)
        resume()
      })
    }
  })
}

/** Ways to answer with nothing but Node. */
const plainEnds: Record<string, (res: ServerResponse) => void> = {
  'end with a string': (res) => res.end('grüße'),
  'end with a string in an encoding': (res) => res.end('Z3LDvMOfZQ==', 'base64'),
  'end with bytes': (res) => res.end(Buffer.from([1, 2, 3])),
  'end with nothing': (res) => res.end(),
  'end with an empty string': (res) => res.end(''),
  'end with a callback': (res) => res.end(() => {}),
  'end with everything': (res) => res.end('text', 'utf8', () => {}),
  'a length that is set': (res) => res.setHeader('Content-Length', 4).end('text'),
  cookies: (res) => res.setHeader('Set-Cookie', ['a=1', 'b=2']).end('text'),
  'a status and its message': (res) => {
    res.statusCode = 404
    res.statusMessage = 'Nothing Here'
    res.end('no')
  },
  writeHead: (res) => res.writeHead(201, { 'X-Made': 'yes' }).end('made'),
  'writeHead with a length': (res) => res.writeHead(200, { 'Content-Length': '4' }).end('text'),
  'flushed headers': (res) => {
    res.flushHeaders()
    res.end('text')
  },
  'write, then end': (res) => {
    res.write('one')
    res.end('two')
  },
  'write, then end with nothing': (res) => {
    res.write('one')
    res.end()
  },
  'a stream': (res) => {
    Readable.from(['one', 'two', 'three']).pipe(res)
  },
  trailers: (res) => {
    // There are none without a body.
    if (res.req.method !== 'HEAD') res.setHeader('Trailer', 'X-Sum')
    res.addTrailers({ 'X-Sum': '7' })
    res.end('text')
  },
  '204': (res) => res.writeHead(204).end(),
  '204 by statusCode': (res) => {
    res.statusCode = 204
    res.end()
  },
  '304': (res) => {
    res.statusCode = 304
    res.end()
  },
  'a redirect': (res) => res.writeHead(302, { Location: '/there' }).end(),
  'a second end': (res) => {
    res.end('first')
    res.end()
  },
  'no chunks': (res) => {
    res.useChunkedEncodingByDefault = false
    res.end('text')
  },
  'a connection that closes': (res) => res.setHeader('Connection', 'close').end('bye'),
  'a date of its own': (res) => {
    res.sendDate = false
    res.end('timeless')
  },
}

/** Ways to answer with Express. */
const expressEnds: Record<string, express5.RequestHandler> = {
  json: (_req, res) => void res.json({ a: 1 }),
  send: (_req, res) => void res.send('text'),
  'send of bytes': (_req, res) => void res.send(Buffer.from('bytes')),
  redirect: (_req, res) => res.redirect('/there'),
  sendStatus: (_req, res) => void res.sendStatus(202),
  'fresh, so 304': (_req, res) => void res.set('ETag', '"x"').send('text'),
  sendFile: (_req, res) => res.sendFile(fileURLToPath(import.meta.url)),
  cookie: (_req, res) => void res.cookie('a', '1').json({}),
  'an error': () => {
    throw Object.assign(new Error('no'), { status: 418, expose: true })
  },
}

async function answersOf(port: number, method: string): Promise<string> {
  const client = await WireClient.connect(port)
  const request = `${method} / HTTP/1.1\r\nHost: localhost\r\nX-User: ann\r\nIf-None-Match: "x"\r\n\r\n`
  // Twice on one connection: what comes after an answer is wrong if the answer is.
  client.write(request)
  const first = await client.answer(method === 'HEAD')
  let second: typeof first | undefined
  if (first.headers.get('connection') !== 'close') {
    client.write(request)
    second = await client.answer(method === 'HEAD')
  }
  const of = (answer: typeof first | undefined) =>
    answer && {
      ...answer,
      headers: [...answer.headers].filter(([name]) => name !== 'date').sort(),
    }
  return JSON.stringify([of(first), of(second), client.pending], null, 1)
}

const bothWays = [{ awaitRelease: false }, { awaitRelease: true }]

for (const framework of frameworks) {
  describe(`An answer of ${framework.name} whose last bytes wait`, () => {
    for (const [how, end] of Object.entries(plainEnds)) {
      for (const method of ['GET', 'HEAD']) {
        it(`is the same: ${method}, ${how}`, async () => {
          const methods = ['GET', 'HEAD']
          const [usual, waited] = await Promise.all(
            bothWays.map(async (way) => {
              const app = await framework.start(
                { store: memoryStore(), methods, ...way },
                ({ takeOver }) => {
                  const res = takeOver()
                  end(res)
                },
              )
              return answersOf(app.port, method)
            }),
          )
          expect(waited).to.equal(usual)
        })
      }
    }

    it('stays as it was answered, whatever the handler does then', async () => {
      const setup = { redis: await distant(5), keyPrefix: freshPrefix(), awaitRelease: true }
      const app = await framework.start(setup, ({ takeOver }) => {
        const res = takeOver()
        res.end('first')
        expect(res.headersSent).to.equal(true)
        expect(res.writableEnded).to.equal(true)
        expect(() => res.setHeader('X-Late', '1')).to.throw('ERR_HTTP_HEADERS_SENT')
        res.statusCode = 500
      })
      const answer = await ask(app.url, 'ann')
      expect(answer).to.include({ status: 200, text: 'first' })
      expect(answer.headers.has('x-late')).to.equal(false)
    })

    it('has what is written too late fail as it would without us', async () => {
      const setup = { redis: await distant(5), keyPrefix: freshPrefix(), awaitRelease: true }
      const late = new Signal<Error>()
      const app = await framework.start(setup, ({ takeOver }) => {
        const res = takeOver()
        res.on('error', late.fire)
        res.end('first')
        res.write('second')
      })
      expect(await ask(app.url, 'ann')).to.include({ status: 200, text: 'first' })
      expect(await late.wait('the error')).to.include({ code: 'ERR_STREAM_WRITE_AFTER_END' })
    })

    it('does not end the process by what comes when it would be over without us', async () => {
      const failed = new Signal<unknown>()
      const setup = { store: memoryStore(), awaitRelease: true }
      const app = await framework.start(setup, async ({ takeOver }) => {
        const res = takeOver()
        res.end('first')
        await sleep(5)
        expect(res.writableFinished).to.equal(false)
        res.end('second')
        res.write('third', failed.fire)
        await failed.promise
      })
      expect(await ask(app.url, 'ann')).to.include({ status: 200, text: 'first' })
      expect(await failed.wait('the error')).to.include({ code: 'ERR_STREAM_WRITE_AFTER_END' })
      await until(() => app.mutex.stats().held === 0, 'the release')
    })

    it('leaves its connection as it was, if it was out before its end', async () => {
      const second = new Signal()
      const ended = new Signal()
      const setup = {
        redis: await distant(50),
        keyPrefix: freshPrefix(),
        methods: ['GET', 'HEAD'],
        awaitRelease: true,
      }
      const app = await framework.start(setup, async ({ req, takeOver }) => {
        const res = takeOver()
        if (req.method === 'HEAD') {
          res.flushHeaders()
          await second.promise
          res.end()
          setImmediate(ended.fire)
        } else {
          second.fire()
          await ended.promise
          res.end('done')
        }
      })
      const client = await WireClient.connect(app.port)
      client.request('ann', 'HEAD /')
      client.request('bob', 'GET /')
      expect((await client.answer(true)).status).to.equal(200)
      for (const user of ['bob', 'ann']) {
        expect((await client.answer()).body).to.equal('done')
        client.request(user, 'GET /')
      }
      expect((await client.answer()).body).to.equal('done')
    })

    it('does not wait for a handler that answers early and works on', async () => {
      const go = new Signal()
      const setup = { store: memoryStore(), awaitRelease: true }
      const app = await framework.start(setup, async ({ send }) => {
        send('first')
        await go.promise
      })
      expect(await ask(app.url, 'ann')).to.include({ status: 200, text: 'first' })
      expect(app.mutex.stats().held).to.equal(1)
      go.fire()
      await until(() => app.mutex.stats().held === 0, 'the release')
    })

    it('does not wait for a handler that waits for its own answer', async () => {
      const setup = { store: memoryStore(), awaitRelease: true }
      const app = await framework.start(setup, async ({ res, send }) => {
        const finished = new Promise((resolve) => res.once('finish', resolve))
        send('first')
        await finished
      })
      expect(await ask(app.url, 'ann')).to.include({ status: 200, text: 'first' })
      await until(() => app.mutex.stats().held === 0, 'the release')
    })

    it('is sent when the store does not answer the release', async () => {
      const setup = {
        redis: await distant(0),
        keyPrefix: freshPrefix(),
        awaitRelease: true,
        storeTimeout: 100,
      }
      const app = await framework.start(setup, ({ send }) => {
        setup.redis.evalsha = () => Promise.reject(new MutexStoreError('gone'))
        setup.redis.eval = () => Promise.reject(new MutexStoreError('gone'))
        send('first')
      })
      expect(await ask(app.url, 'ann')).to.include({ status: 200, text: 'first' })
    })

    it('is sent when the handler has released by itself', async () => {
      const setup = { store: memoryStore(), awaitRelease: true }
      const app = await framework.start(setup, async ({ lock, send }) => {
        await lock?.release()
        send('first')
      })
      expect(await ask(app.url, 'ann')).to.include({ status: 200, text: 'first' })
    })

    it('reaches the pipelined requests behind it in order', async () => {
      const setup = { store: memoryStore(), awaitRelease: true }
      const app = await framework.start(setup, async ({ req, send }) => {
        await sleep(req.url === '/1' ? 5 : 0)
        send(req.url)
      })
      const client = await WireClient.connect(app.port)
      client.request('ann', 'POST /1', 'POST /2', 'POST /3')
      for (const path of ['/1', '/2', '/3']) {
        expect(await client.answer()).to.include({ status: 200, body: path })
      }
    })
  })
}

for (const [name, express] of [
  ['Express 5', express5],
  ['Express 4', express4 as unknown as typeof express5],
] as const) {
  describe(`An answer by ${name}'s own methods whose last bytes wait`, () => {
    for (const [how, end] of Object.entries(expressEnds)) {
      for (const method of ['GET', 'HEAD']) {
        it(`is the same: ${method}, ${how}`, async () => {
          const [usual, waited] = await Promise.all(
            bothWays.map(async (way) => {
              const app = express()
              app.set('env', 'test')
              const lock = requestLock({
                keyFrom: byUser,
                store: memoryStore(),
                methods: ['GET', 'HEAD'],
                ...way,
              })
              app.use(lock, requestLock.wrap(end))
              const { port } = await running(app.listen(0, '127.0.0.1'), lock.mutex, () =>
                lock.close(),
              )
              return answersOf(port, method)
            }),
          )
          expect(waited).to.equal(usual)
          if (how === 'sendFile' && method === 'GET') {
            expect(waited).to.include(
              JSON.stringify(readFileSync(fileURLToPath(import.meta.url), 'latin1'))
                .slice(1, -1)
                .slice(0, 200),
            )
          }
        })
      }
    }
  })
}
