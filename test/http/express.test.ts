import { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { PassThrough } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { Mutex, memoryStore } from '@redismutex/core'
import { type RequestLock, requestLock } from '@redismutex/express'
import { expect } from 'chai'
import express5 from 'express'
import session from 'express-session'
import express4 from 'express4'
import { atEnd } from '../support/cleanup.js'
import { ask, byUser, type RunningApp, running, Signal, until } from './harness.js'
import { WireClient } from './wire.js'

const versions: readonly [string, typeof express5][] = [
  ['Express 5', express5],
  ['Express 4', express4 as unknown as typeof express5],
]

function listen(app: express5.Express, lock: RequestLock): Promise<RunningApp> {
  app.set('env', 'test')
  return running(app.listen(0, '127.0.0.1'), lock.mutex, () => lock.close())
}

const tell: express5.RequestHandler = (req, res) => {
  res.send(req.lock?.keys.join('+') ?? 'none')
}

for (const [name, express] of versions) {
  const make = (options: Partial<Parameters<typeof requestLock>[0]> = {}) =>
    requestLock({ store: memoryStore(), keyFrom: byUser, ...options })

  describe(`requestLock in ${name}`, () => {
    it('is a named function, with the mutex it locks with', () => {
      const lock = make({ blockTime: 1234 })
      expect(lock.name).to.equal('requestLock')
      expect(lock.length).to.equal(3)
      expect(lock.mutex).to.be.instanceOf(Mutex)
      expect(lock.mutex.options).to.deep.equal({
        blockTime: 1234,
        expiry: Number.POSITIVE_INFINITY,
        maxWaiting: 50,
      })
    })

    it('takes one lock where it is mounted twice, in nested routers too', async () => {
      const lock = make()
      const other = make({ mutex: lock.mutex, store: undefined })
      const app = express()
      const router = express.Router()
      router.use(lock)
      router.post('/', lock, other, tell)
      app.use(lock, router)
      const { url, mutex } = await listen(app, lock)
      expect((await ask(url, 'ann')).text).to.equal('ann')
      expect(mutex.stats()).to.include({ held: 0, acquired: 1 })
      expect(other.mutex.stats()).to.include({ held: 0, acquired: 0 })
    })

    it('takes a lock of its own for another key, and for another store', async () => {
      const store = memoryStore()
      const lock = make({ store })
      const cart = make({ store, keyFrom: () => ['ann', 'cart', 'shop'] })
      const elsewhere = make()
      const app = express()
      app.post('/', lock, cart, elsewhere, (_req, res) => {
        res.json([lock, cart, elsewhere].map(({ mutex }) => mutex.stats().held))
      })
      app.post('/cart', cart, tell)
      const { url } = await listen(app, lock)
      expect((await ask(url, 'ann')).text).to.equal('[1,2,1]')
      expect((await ask(`${url}/cart`, 'ann')).text).to.equal('ann+cart+shop')
      for (const each of [lock, cart, elsewhere]) {
        await until(() => each.mutex.stats().held === 0, 'all released')
      }
    })

    it('gives back what it holds when its client leaves while it waits for another lock', async () => {
      const [first, second] = [make(), make()]
      const app = express()
      app.post('/', first, second, tell)
      const { port } = await listen(app, first)
      atEnd(() => second.close())
      const held = await second.mutex.acquireLock('ann')
      const client = await WireClient.connect(port)
      client.request('ann')
      await until(() => second.mutex.stats().waiting === 1, 'the request in line')
      expect(first.mutex.stats().held).to.equal(1)
      client.leave()
      // Long before the lease is over.
      await until(() => second.mutex.stats().waiting === 0, 'the place given up')
      await sleep(50)
      expect(first.mutex.stats().held).to.equal(0)
      await held.release()
    })

    it('holds what it holds until who has passed it on is done, when its client leaves the next line', async () => {
      const [first, second] = [make(), make()]
      const go = new Signal()
      const app = express()
      const working = requestLock.wrap(async (_req, _res, next) => {
        next()
        await go.promise
      })
      app.post('/', first, working, second, tell)
      const { port } = await listen(app, first)
      atEnd(() => second.close())
      const held = await second.mutex.acquireLock('ann')
      const client = await WireClient.connect(port)
      client.request('ann')
      await until(() => second.mutex.stats().waiting === 1, 'the request in line')
      client.leave()
      await until(() => second.mutex.stats().waiting === 0, 'the place given up')
      await sleep(50)
      expect(first.mutex.stats().held).to.equal(1)
      go.fire()
      await sleep(50)
      expect(first.mutex.stats().held).to.equal(0)
      await held.release()
    })

    it('takes the lock anew where the request has released it', async () => {
      const lock = make()
      const app = express()
      app.post(
        '/',
        lock,
        (req, _res, next) => void req.lock?.release().then(() => next(), next),
        lock,
        tell,
      )
      const { url, mutex } = await listen(app, lock)
      expect((await ask(url, 'ann')).text).to.equal('ann')
      expect(mutex.stats()).to.include({ held: 0, acquired: 2 })
    })

    it('locks POST, PUT, PATCH and DELETE where it is mounted for all', async () => {
      const lock = make()
      const app = express()
      // A route that passes on leaves itself behind in the request.
      app.all('/', (_req, _res, next) => next())
      app.use(lock, tell)
      const { url } = await listen(app, lock)
      for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) {
        expect((await ask(url, 'ann', { method })).text, method).to.equal('ann')
      }
      for (const method of ['GET', 'OPTIONS', 'PROPFIND']) {
        expect((await ask(url, 'ann', { method })).text, method).to.equal('none')
      }
    })

    it('locks a route that asks for it whatever its method, but not the HEAD of a GET', async () => {
      const lock = make()
      const app = express()
      const handler: express5.RequestHandler = (req, res) => {
        res.set('X-Lock', req.lock ? 'locked' : 'none').send('done')
      }
      app.get('/get', lock, handler)
      app.options('/options', [lock], handler)
      app.route('/head').head(lock, handler)
      app.all('/all', lock, handler)
      const router = express.Router()
      router.use(lock)
      router.get('/', handler)
      app.get('/router', router)
      app.use('/router', router)
      const { url } = await listen(app, lock)
      for (const [method, path, expected] of [
        ['GET', '/get', 'locked'],
        ['HEAD', '/get', 'none'],
        ['OPTIONS', '/options', 'locked'],
        ['HEAD', '/head', 'locked'],
        ['GET', '/all', 'locked'],
        ['HEAD', '/all', 'locked'],
        ['GET', '/router', 'none'],
      ] as const) {
        const { headers } = await ask(url + path, 'ann', { method })
        expect(headers.get('x-lock'), `${method} ${path}`).to.equal(expected)
      }
    })

    it('locks what methods says wherever it is mounted, in whatever case', async () => {
      const lock = make({ methods: ['get'] })
      const app = express()
      app.post('/route', lock, tell)
      app.get('/route', lock, tell)
      app.use(lock, tell)
      const { url } = await listen(app, lock)
      for (const path of ['/', '/route']) {
        expect((await ask(url + path, 'ann', { method: 'GET' })).text).to.equal('ann')
        expect((await ask(url + path, 'ann')).text).to.equal('none')
      }
    })

    it('adds the time waited to Server-Timing, if asked', async () => {
      const lock = make({ serverTiming: true })
      const app = express()
      app.use((_req, res, next) => {
        res.set('Server-Timing', 'db;dur=3')
        next()
      })
      app.post('/', lock, tell)
      const { url } = await listen(app, lock)
      const { headers } = await ask(url, 'ann')
      expect(headers.get('server-timing')).to.match(/^db;dur=3, lock;dur=\d+\.\d$/)
    })

    it('leaves requests alone that need no lock, even when their client has left', async () => {
      const lock = make()
      const come = new Signal()
      const gone = new Signal()
      const ran = new Signal<string>()
      const app = express()
      app.use((req, _res, next) => {
        come.fire()
        // As one that parses a body: the client has time to leave.
        req.socket.once('close', () => {
          gone.fire()
          next()
        })
      })
      app.post('/hook', lock, (req) => ran.fire(req.url))
      const { port } = await listen(app, lock)
      const client = await WireClient.connect(port)
      client.write('POST /hook HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n')
      await come.wait('the request')
      client.leave()
      await gone.wait('the end of the connection')
      expect(await ran.wait('the handler')).to.equal('/hook')
    })

    it('works where a request has no real socket', async () => {
      const lock = make()
      const app = express()
      app.post('/', lock, tell)
      const req = Object.assign(new IncomingMessage({} as Socket), {
        method: 'POST',
        url: '/',
        headers: { 'x-user': 'ann' },
      })
      const res = new ServerResponse(req)
      const ended = new Signal()
      const { end } = res
      res.end = ((...args: Parameters<typeof end>) => {
        ended.fire()
        return end.apply(res, args)
      }) as typeof end
      app(req as never, res as never)
      await ended.wait('the answer')
      await until(() => lock.mutex.stats().held === 0, 'the release')
      expect(lock.mutex.stats()).to.include({ acquired: 1 })
      await lock.close()
    })

    it('closes once, however often it is told to', async () => {
      const lock = make()
      expect(lock.close()).to.equal(lock.close())
      await lock.close()
      const app = express()
      app.post('/', lock, tell)
      const { url } = await listen(app, lock)
      expect((await ask(url, 'ann')).status).to.equal(503)
    })

    it('never closes the mutex that it was given', async () => {
      const mutex = new Mutex(memoryStore(), { blockTime: 100 })
      const lock = make({ store: undefined, mutex })
      expect(lock.mutex.options).to.include({ blockTime: 100, expiry: Number.POSITIVE_INFINITY })
      await lock.close()
      await mutex.runExclusive('ann', () => {})
    })
  })

  describe(`onBusy in ${name}`, () => {
    async function busy(
      onBusy: Parameters<typeof requestLock>[0]['onBusy'],
      more: (app: express5.Express) => void = () => {},
    ) {
      const lock = make({ blocking: false, onBusy })
      const inside = new Signal()
      const go = new Signal()
      const app = express()
      app.post('/first', lock, async (_req, res) => {
        inside.fire()
        await go.promise
        res.send('done')
      })
      app.post('/', lock, tell)
      more(app)
      const { url } = await listen(app, lock)
      const first = ask(`${url}/first`, 'ann')
      await inside.wait('the first handler')
      const answer = await ask(url, 'ann')
      go.fire()
      expect((await first).status).to.equal(200)
      return answer
    }

    it('answers instead', async () => {
      const answer = await busy((_req, res, _next, error) => {
        res.status(error.statusCode).set(error.headers).json({ wait: true, code: error.code })
      })
      expect(answer.status).to.equal(409)
      expect(JSON.parse(answer.text)).to.deep.equal({ wait: true, code: 'ERR_MUTEX_LOCKED' })
      expect(answer.headers.get('retry-after')).to.equal('1')
    })

    it('may hand the error to the error handlers of the app', async () => {
      const answer = await busy(
        (_req, _res, next, error) => next(error),
        (app) => {
          const handler: express5.ErrorRequestHandler = (error, _req, res, _next) => {
            res.status(error.statusCode).send(`handled ${error.code}`)
          }
          app.use(handler)
        },
      )
      expect(answer).to.include({ status: 409, text: 'handled ERR_MUTEX_LOCKED' })
    })

    it('may leave it to Express, which answers with the status', async () => {
      const answer = await busy((_req, _res, next, error) => next(error))
      expect(answer.status).to.equal(409)
      expect(answer.headers.get('retry-after')).to.equal('1')
      expect(answer.text).to.not.include('ann')
    })

    it('may go on without a lock', async () => {
      expect(await busy((_req, _res, next) => next())).to.include({ status: 200, text: 'none' })
    })

    it('may fail: an error of the app', async () => {
      const thrown = await busy(() => {
        throw new Error('busy handler')
      })
      expect(thrown.status).to.equal(500)
      expect((await busy(() => Promise.reject())).status).to.equal(500)
    })
  })

  describe(`Error middleware in ${name}`, () => {
    const seeing = (seen: unknown[]): express5.ErrorRequestHandler =>
      function handleError(error, req, res, next) {
        seen.push([error.code ?? error.message, req.lock?.key])
        if (res.headersSent) next(error)
        else res.status(418).send('handled')
      }

    for (const [what, wrap] of [
      ['plain handlers', (handler: express5.RequestHandler) => handler],
      ['wrapped handlers', requestLock.wrap],
    ] as const) {
      it(`sees the errors of ${what} once, still under the lock`, async () => {
        const lock = make()
        const seen: unknown[] = []
        const app = express()
        app.use(lock)
        app.post(
          '/throws',
          wrap(() => {
            throw new Error('thrown')
          }),
        )
        app.post(
          '/passes',
          wrap((_req, _res, next) => next(new Error('passed'))),
        )
        app.use(seeing(seen))
        const { url } = await listen(app, lock)
        for (const path of ['/throws', '/passes']) {
          expect(await ask(url + path, 'ann')).to.include({ status: 418, text: 'handled' })
        }
        expect(seen).to.deep.equal([
          ['thrown', 'ann'],
          ['passed', 'ann'],
        ])
        await until(() => lock.mutex.stats().held === 0, 'the release')
      })
    }

    it('sees what keyFrom throws', async () => {
      const lock = make({
        keyFrom: () => {
          throw new Error('no key')
        },
      })
      const seen: unknown[] = []
      const app = express()
      app.use(lock, seeing(seen))
      const { url } = await listen(app, lock)
      expect(await ask(url, 'ann')).to.include({ status: 418, text: 'handled' })
      expect(seen).to.deep.equal([['no key', undefined]])
    })

    it('sees the refusal of a request that somebody has begun to answer, and no other', async () => {
      const lock = make({ blocking: false })
      const seen: unknown[] = []
      const app = express()
      app.post('/begun', (_req, res, next) => {
        res.write('half')
        next()
      })
      app.use(lock, tell, seeing(seen))
      const { url, port } = await listen(app, lock)
      await using _held = await lock.mutex.acquireLock('ann')
      expect((await ask(url, 'ann')).status).to.equal(409)
      expect(seen).to.deep.equal([])
      const client = await WireClient.connect(port)
      client.request('ann', 'POST /begun')
      await client.end()
      expect(client.pending).to.include('half')
      expect(seen).to.deep.equal([['ERR_MUTEX_LOCKED', undefined]])
    })
  })

  describe(`requestLock.wrap in ${name}`, () => {
    const wrapped = async (...handlers: express5.RequestHandler[]) => {
      const lock = make()
      const app = express()
      app.post('/', lock, ...handlers)
      return listen(app, lock)
    }

    it('keeps the name of the handler', () => {
      const handler: express5.RequestHandler = function save() {}
      expect(requestLock.wrap(handler).name).to.equal('save')
    })

    it('refuses what is no handler', () => {
      for (const [value, got] of [
        [undefined, 'undefined'],
        ['save', 'string'],
        [(_a: unknown, _b: unknown, _c: unknown, _d: unknown) => {}, 'one of 4 arguments'],
      ] as const) {
        expect(() => requestLock.wrap(value as never)).to.throw(
          TypeError,
          `handler must be a function of (req, res, next), got ${got}`,
        )
      }
    })

    it('forwards errors without a lock too', async () => {
      const lock = make()
      const app = express()
      app.get(
        '/',
        requestLock.wrap(async () => {
          throw new Error('no lock needed')
        }),
      )
      const { url } = await listen(app, lock)
      expect((await ask(url, 'ann', { method: 'GET' })).status).to.equal(500)
    })

    it('holds until a handler that answers by a callback has answered', async () => {
      const go = new Signal()
      const app = await wrapped(
        requestLock.wrap((_req, res) => {
          void go.promise.then(() => res.send('done'))
        }),
      )
      const answer = ask(app.url, 'ann')
      await until(() => app.mutex.stats().held === 1, 'the lock')
      go.fire()
      expect((await answer).text).to.equal('done')
      await until(() => app.mutex.stats().held === 0, 'the release')
    })

    it('holds on after a middleware that has passed the request on', async () => {
      const go = new Signal()
      const order: string[] = []
      const app = await wrapped(
        requestLock.wrap(async (_req, _res, next) => {
          next()
          order.push('passed on')
        }),
        requestLock.wrap(async (_req, res) => {
          await go.promise
          order.push('done')
          res.send('done')
        }),
      )
      const client = await WireClient.connect(app.port)
      client.request('ann')
      await until(() => order.length === 1, 'the middleware')
      client.leave()
      const second = ask(app.url, 'ann')
      await until(() => app.mutex.stats().waiting === 1, 'the next one in line')
      go.fire()
      expect((await second).status).to.equal(200)
      expect(order.slice(0, 2)).to.deep.equal(['passed on', 'done'])
    })

    it('holds on for who comes behind one that leaves it to a callback to pass the request on', async () => {
      const [go, pass] = [new Signal(), new Signal()]
      const order: string[] = []
      let first: AbortSignal | undefined
      const app = await wrapped(
        requestLock.wrap(async (req, _res, next) => {
          order.push('left to a callback')
          first ??= req.lock?.signal
          void pass.promise.then(() => next())
        }),
        requestLock.wrap(async (_req, res) => {
          order.push('begun')
          await go.promise
          order.push('done')
          res.send('done')
        }),
      )
      const client = await WireClient.connect(app.port)
      client.request('ann')
      await until(() => order.length === 1, 'the middleware')
      client.leave()
      await until(() => first?.aborted === true, 'the word that the client has left')
      const second = ask(app.url, 'ann')
      await until(() => app.mutex.stats().waiting === 1, 'the next one in line')
      pass.fire()
      await until(() => order.length === 2, 'the handler')
      go.fire()
      expect((await second).status).to.equal(200)
      expect(order.slice(0, 3)).to.deep.equal(['left to a callback', 'begun', 'done'])
    })

    it('gives back what is over when a middleware is done last that has passed the request on', async () => {
      const go = new Signal()
      const order: string[] = []
      const app = await wrapped(
        requestLock.wrap(async (_req, _res, next) => {
          next()
          await go.promise
        }),
        requestLock.wrap(async () => void order.push('done')),
      )
      const client = await WireClient.connect(app.port)
      client.request('ann')
      await until(() => order.length === 1, 'the handler')
      client.leave()
      const second = await WireClient.connect(app.port)
      second.request('ann')
      await until(() => app.mutex.stats().waiting === 1, 'the next one in line')
      go.fire()
      const fired = performance.now()
      await until(() => order.length === 2, 'the next one')
      // Long before the lease is over.
      expect(performance.now() - fired).to.be.lessThan(5000)
    })

    it('holds on while error middleware works that was told by next(error)', async () => {
      const go = new Signal()
      const order: string[] = []
      const work: express5.ErrorRequestHandler = async (_error, _req, res, _next) => {
        order.push('begun')
        await go.promise
        order.push('done')
        res.status(500).end()
      }
      const lock = make()
      const app = express()
      app.post(
        '/',
        lock,
        requestLock.wrap(async (_req, _res, next) => next(new Error('told'))),
      )
      app.use(work)
      const { url, port } = await listen(app, lock)
      const client = await WireClient.connect(port)
      client.request('ann')
      await until(() => order.length === 1, 'the middleware')
      const second = ask(url, 'ann')
      await until(() => lock.mutex.stats().waiting === 1, 'the next one in line')
      client.leave()
      await sleep(50)
      expect(order).to.deep.equal(['begun'])
      go.fire()
      expect((await second).status).to.equal(500)
      expect(order).to.deep.equal(['begun', 'done', 'begun', 'done'])
    })

    it('lets next(error), next("route") and plain next through', async () => {
      const lock = make()
      const app = express()
      app.post(
        '/',
        lock,
        requestLock.wrap(async (req, _res, next) => {
          if (req.get('x-how') === 'route') next('route')
          else if (req.get('x-how') === 'error') next(new Error('told'))
          else next()
        }),
        (_req, res) => void res.send('next'),
      )
      app.post('/', (_req, res) => void res.send('route'))
      const { url } = await listen(app, lock)
      const how = async (how: string) => await ask(url, 'ann', { headers: { 'x-how': how } })
      expect((await how('next')).text).to.equal('next')
      expect((await how('route')).text).to.equal('route')
      expect((await how('error')).status).to.equal(500)
      await until(() => lock.mutex.stats().held === 0, 'the release')
    })
  })

  describe(`requestLock with sessions in ${name}`, () => {
    /** A session store whose saves take a while. */
    class SlowStore extends session.MemoryStore {
      readonly log: string[] = []
      override set(...[id, data, done]: Parameters<session.MemoryStore['set']>) {
        this.log.push('saving')
        setTimeout(() => {
          super.set(id, data, (error) => {
            this.log.push('saved')
            done?.(error)
          })
        }, 15)
      }
    }

    const counting = (
      lock: RequestLock,
      order: 'lock first' | 'session first',
      wrap: (handler: express5.RequestHandler) => express5.RequestHandler = (handler) => handler,
    ) => {
      const store = new SlowStore()
      const sessions = session({ store, secret: 's', resave: false, saveUninitialized: true })
      const app = express()
      if (order === 'lock first') app.use(lock, sessions)
      else app.use(sessions, lock)
      app.post(
        '/',
        wrap(async (req, res) => {
          store.log.push('in')
          const known = req.session as unknown as { count?: number }
          known.count = (known.count ?? 0) + 1
          res.json({ count: known.count })
        }),
      )
      return { app, store }
    }

    const cookieOf = async (url: string) => {
      const first = await ask(url, 'new')
      return (first.headers.get('set-cookie') ?? '').split(';')[0] ?? ''
    }

    it('loses no update of a session when it comes before session()', async () => {
      const lock = make({ keyFrom: (req) => req.headers.cookie })
      const { app } = counting(lock, 'lock first')
      const { url } = await listen(app, lock)
      const cookie = await cookieOf(url)
      const answers = await Promise.all(
        Array.from({ length: 10 }, () => ask(url, 'ann', { headers: { cookie } })),
      )
      const counts = answers.map(({ text }) => JSON.parse(text).count).sort((a, b) => a - b)
      expect(counts).to.deep.equal([2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
    })

    const wraps = { 'plain handler': undefined, 'wrapped handler': requestLock.wrap }
    for (const order of ['lock first', 'session first'] as const) {
      for (const awaitRelease of [false, true]) {
        for (const leaves of [false, true]) {
          for (const [what, wrap] of Object.entries(wraps)) {
            const how = `${order}, ${what}${awaitRelease ? ', last bytes waiting' : ''}${leaves ? ', client gone' : ''}`
            it(`goes back only after the save: ${how}`, async () => {
              const lock = make({ keyFrom: (req) => req.headers.cookie, awaitRelease })
              const { app, store } = counting(lock, order, wrap)
              const { url, port } = await listen(app, lock)
              const cookie = await cookieOf(url)
              await until(() => lock.mutex.stats().held === 0, 'the first release')
              store.log.length = 0
              const client = await WireClient.connect(port)
              client.write(
                `POST / HTTP/1.1\r\nHost: a\r\nCookie: ${cookie}\r\nContent-Length: 0\r\n\r\n`,
              )
              await until(() => store.log.includes('saving'), 'the first save')
              if (leaves) client.leave()
              await ask(url, 'ann', { headers: { cookie } })
              expect(store.log.slice(0, 4)).to.deep.equal(['in', 'saving', 'saved', 'in'])
              expect(lock.mutex.stats().lost).to.equal(0)
            })
          }
        }
      }
    }
  })

  describe(`requestLock where others wrap the end of a response, in ${name}`, () => {
    /** Puts off the real end, as one does who compresses or saves first. */
    const deferring: express5.RequestHandler = (_req, res, next) => {
      const end = res.end.bind(res) as (...args: unknown[]) => unknown
      res.end = ((...args: unknown[]) => {
        setTimeout(() => end(...args), 15)
        return res
      }) as typeof res.end
      next()
    }
    /** Takes itself away at the first call, and all that came over it. */
    const vanishing: express5.RequestHandler = (_req, res, next) => {
      const { end } = res
      res.end = function (this: typeof res, ...args: Parameters<typeof end>) {
        res.end = end
        return end.apply(this, args)
      } as typeof res.end
      next()
    }

    /** Sends through a stream, whose reader is slow, as one does who compresses. */
    const streaming =
      (leaving: (stream: PassThrough) => void): express5.RequestHandler =>
      (_req, res, next) => {
        const end = res.end.bind(res)
        const stream = new PassThrough()
        stream.on('data', () => stream.pause()).on('end', end)
        res.once('close', () => leaving(stream))
        res.end = ((body: string) => {
          stream.write(body)
          return stream.end(body)
        }) as unknown as typeof res.end
        next()
      }

    // As `compression` does from 1.8.2 on, and as it did before.
    for (const [what, leaving] of [
      ['gives up', (stream) => void stream.destroy()],
      ['waits on', () => {}],
    ] as [string, (stream: PassThrough) => void][]) {
      for (const place of ['before', 'after']) {
        it(`releases when the client leaves one ${place} it who streams, and ${what} then`, async () => {
          const lock = make()
          const app = express()
          const other = streaming(leaving)
          if (place === 'before') app.use(other, lock)
          else app.use(lock, other)
          const ended = new Signal()
          app.post(
            '/',
            requestLock.wrap(async (_req, res) => {
              res.send('done')
              ended.fire()
            }),
          )
          const { port, mutex } = await listen(app, lock)
          const client = await WireClient.connect(port)
          client.request('ann')
          await ended.wait('the end')
          await sleep(20)
          expect(mutex.stats().held).to.equal(1)
          const left = performance.now()
          client.leave()
          await until(() => mutex.stats().held === 0, 'the release')
          // Long before the lease is over.
          expect(performance.now() - left).to.be.lessThan(5000)
        })
      }
    }

    it('releases when somebody ends the response by an end from before', async () => {
      const lock = make()
      const app = express()
      app.use((_req, res, next) => {
        const end = res.end.bind(res)
        setTimeout(() => end('too slow'), 15)
        next()
      })
      app.post('/', lock, () => {})
      const { url, mutex } = await listen(app, lock)
      expect((await ask(url, 'ann')).text).to.equal('too slow')
      await until(() => mutex.stats().held === 0, 'the release')
    })

    for (const [who, other] of [
      ['defers it', deferring],
      ['takes itself away', vanishing],
    ] as const) {
      for (const place of ['before', 'after']) {
        it(`works with one ${place} it who ${who}`, async () => {
          const lock = make()
          const app = express()
          if (place === 'before') app.use(other, lock)
          else app.use(lock, other)
          let inside = 0
          app.post('/', async (_req, res) => {
            expect(++inside).to.equal(1)
            await sleep(1)
            inside--
            res.send('done')
          })
          const { url, port, mutex } = await listen(app, lock)
          const answers = await Promise.all([1, 2, 3].map(() => ask(url, 'ann')))
          expect(answers.map(({ status }) => status)).to.deep.equal([200, 200, 200])
          // A queued response tells nobody of its end.
          const client = await WireClient.connect(port)
          client.request('ann', 'POST /', 'POST /', 'POST /')
          for (let i = 0; i < 3; i++) expect((await client.answer()).status).to.equal(200)
          await until(() => mutex.stats().held === 0, 'the release')
        })
      }
    }
  })
}
