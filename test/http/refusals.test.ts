import { expect } from 'chai'
import { startRedis } from '../support/redis.js'
import {
  type Answer,
  allFrameworks,
  ask,
  byUser,
  type Framework,
  type LockSetup,
  type RunningApp,
  redis,
  Signal,
  stores,
  until,
  within,
} from './harness.js'
import { WireClient } from './wire.js'

/** A user that must not show in any answer. */
const SECRET = 'ann-7f1d4c'

interface Busy {
  readonly app: RunningApp
  /** Lets the first request go, and waits for its answer. */
  end(): Promise<Answer>
}

/** An app in which one request holds the lock of the user. */
async function busy(framework: Framework, setup: LockSetup): Promise<Busy> {
  const inside = new Signal()
  const go = new Signal()
  const app = await framework.start(setup, async ({ req, send }) => {
    if (req.url === '/first') {
      inside.fire()
      await go.promise
    }
    send('done')
  })
  // On a busy machine a short `blockTime` may be over before Redis has been connected to.
  let first: Promise<Answer>
  let isInside: boolean
  do {
    first = ask(`${app.url}/first`, SECRET)
    isInside = await Promise.race([inside.promise.then(() => true), first.then(() => false)])
  } while (!isInside)
  return {
    app,
    end() {
      go.fire()
      return first
    },
  }
}

/** Every answer of ours to one who was refused, byte for byte but for the details. */
function expectProblem(answer: Answer, status: number, title: string, code: string): void {
  expect(answer.status).to.equal(status)
  expect(answer.headers.get('content-type')).to.equal('application/problem+json; charset=utf-8')
  expect(answer.headers.get('cache-control')).to.equal('no-store')
  expect(answer.headers.get('retry-after')).to.match(/^[1-9]\d*$/)
  expect(answer.headers.get('content-length')).to.equal(String(answer.text.length))
  const body = JSON.parse(answer.text)
  expect(Object.keys(body)).to.deep.equal(['type', 'title', 'status', 'detail', 'code'])
  expect(body).to.include({ type: 'about:blank', title, status, code })
  expect(body.detail).to.be.a('string').that.does.not.equal('')
  expect(answer.text + JSON.stringify([...answer.headers])).to.not.include(SECRET)
}

for (const { name, setup } of stores) {
  for (const framework of allFrameworks) {
    describe(`Refused by ${framework.name}, ${name}`, () => {
      it('409 when blockTime is over', async () => {
        const { app, end } = await busy(framework, { ...setup(), blockTime: 50 })
        const answer = await ask(app.url, SECRET)
        expectProblem(answer, 409, 'Conflict', 'ERR_MUTEX_BLOCK_TIME_EXCEEDED')
        expect((await end()).status).to.equal(200)
        await until(() => app.mutex.stats().held === 0, 'the release')
        expect((await ask(app.url, SECRET)).status).to.equal(200)
      })

      it('409 at once with blocking: false', async () => {
        const { app, end } = await busy(framework, { ...setup(), blocking: false })
        expectProblem(await ask(app.url, SECRET), 409, 'Conflict', 'ERR_MUTEX_LOCKED')
        expect((await end()).status).to.equal(200)
        expect((await ask(app.url, SECRET)).status).to.equal(200)
      })

      it('409 at once when maxWaiting wait already', async () => {
        const { app, end } = await busy(framework, { ...setup(), maxWaiting: 2, blockTime: 20_000 })
        const waiting = [ask(app.url, SECRET), ask(app.url, SECRET)]
        await until(() => app.mutex.stats().waiting === 2, 'two in line')
        expectProblem(await ask(app.url, SECRET), 409, 'Conflict', 'ERR_MUTEX_QUEUE_FULL')
        await end()
        for (const answer of await Promise.all(waiting)) expect(answer.status).to.equal(200)
      })

      it('409 for the 51st who waits, if maxWaiting is not set', async () => {
        const { app, end } = await busy(framework, { ...setup(), blockTime: 20_000 })
        const client = await WireClient.connect(app.port)
        client.request(SECRET, ...Array<string>(50).fill('POST /'))
        await until(() => app.mutex.stats().waiting === 50, 'fifty in line')
        expectProblem(await ask(app.url, SECRET), 409, 'Conflict', 'ERR_MUTEX_QUEUE_FULL')
        await end()
        for (let i = 0; i < 50; i++) expect(await client.answer()).to.include({ status: 200 })
      })

      it('503 while it closes: those who wait at once, who holds finishes', async () => {
        const { app, end } = await busy(framework, { ...setup(), blockTime: 20_000 })
        const waiting = ask(app.url, SECRET)
        await until(() => app.mutex.stats().waiting === 1, 'one in line')
        let closed = false
        const closing = app.close().then(() => {
          closed = true
        })
        expectProblem(await waiting, 503, 'Service Unavailable', 'ERR_MUTEX_CLOSED')
        expect(closed).to.equal(false)
        expect(await end()).to.include({ status: 200, text: 'done' })
        // Fastify's close waits for connections that clients keep alive.
        app.server.closeIdleConnections()
        await within(closing, 'closing')
        expect(app.mutex.stats()).to.include({ held: 0, waiting: 0, lost: 0 })
      })

      it('with the status that statusCode says, if it is held and not the server’s trouble', async () => {
        const { app, end } = await busy(framework, { ...setup(), blocking: false, statusCode: 423 })
        expectProblem(await ask(app.url, SECRET), 423, 'Locked', 'ERR_MUTEX_LOCKED')
        await end()
      })

      it('without a body for HEAD', async () => {
        const options = { ...setup(), blocking: false, methods: ['HEAD', 'POST'] }
        const { app, end } = await busy(framework, options)
        const client = await WireClient.connect(app.port)
        client.request(SECRET, 'HEAD /', 'POST /')
        const head = await client.answer(true)
        const post = await client.answer()
        expect(head.status).to.equal(409)
        for (const header of ['content-type', 'content-length', 'cache-control', 'retry-after']) {
          expect(head.headers.get(header), header).to.equal(post.headers.get(header))
        }
        expect(post.status).to.equal(409)
        expect(client.pending).to.equal('')
        await end()
      })
    })
  }
}

for (const framework of allFrameworks) {
  describe(`${framework.name} when the store can't be asked`, () => {
    const dead = async (): Promise<LockSetup> => {
      const server = await startRedis()
      const client = redis(server.port, { retryStrategy: () => 50 })
      await client.ping()
      await server.stop()
      return { redis: client, storeTimeout: 100 }
    }

    it('answers 503', async () => {
      const app = await framework.start(await dead(), ({ send }) => send('done'))
      const answer = await ask(app.url, SECRET)
      expectProblem(answer, 503, 'Service Unavailable', 'ERR_MUTEX_STORE')
      expect(app.mutex.stats()).to.include({ storeErrors: 1, held: 0, waiting: 0 })
    })

    it("goes on without a lock with onStoreError 'pass', and says so", async () => {
      const setup: LockSetup = { ...(await dead()), onStoreError: 'pass' }
      const app = await framework.start(setup, ({ lock, send }) => send(String(lock ?? 'none')))
      const warning = nextWarning('RequestLockWarning')
      expect(await ask(app.url, SECRET)).to.include({ status: 200, text: 'none' })
      const { message } = await warning.wait('the warning')
      expect(message).to.match(/goes on without its lock/)
      expect(message).to.not.include(SECRET)
    })

    it('keeps the response of a request whose lock can not be released, and reports it', async () => {
      const server = await startRedis()
      try {
        const client = redis(server.port, { retryStrategy: () => 50 })
        const inside = new Signal()
        const go = new Signal()
        const app = await framework.start(
          { redis: client, storeTimeout: 100 },
          async ({ send }) => {
            inside.fire()
            await go.promise
            send('done')
          },
        )
        const answer = ask(app.url, SECRET)
        await inside.wait('the handler')
        await server.kill()
        const warning = nextWarning('RequestLockWarning')
        go.fire()
        expect(await answer).to.include({ status: 200, text: 'done' })
        const { message } = await warning.wait('the warning')
        expect(message).to.match(/not released/)
        expect(message).to.not.include(SECRET)
      } finally {
        await server.stop()
      }
    })
  })

  describe(`What keyFrom names in ${framework.name}`, () => {
    const key = (give: () => unknown): LockSetup => ({ keyFrom: give })
    const start = (give: () => unknown) =>
      framework.start(key(give), ({ lock, send }) => send((lock?.keys ?? []).join('+')))

    for (const [what, give, held] of [
      ['a string', () => 'one', 'one'],
      ['a promise of a string', async () => 'one', 'one'],
      ['an array', () => ['b', 'a', 'b'], 'b+a'],
      ['a promise of an array', async () => ['b', 'a'], 'b+a'],
      ['null', () => null, ''],
      ['undefined', () => undefined, ''],
      ['a promise of nothing', async () => undefined, ''],
      ['an empty array', () => [], ''],
    ] as const) {
      it(`is locked: ${what}`, async () => {
        const app = await start(give)
        expect(await ask(app.url, SECRET)).to.include({ status: 200, text: held })
      })
    }

    for (const [what, give] of [
      ['an empty string', () => ''],
      ['a number', () => 7_113],
      ['false', () => false],
      ['NaN', () => Number.NaN],
      ['an object', () => ({ id: SECRET })],
      ['a symbol', () => Symbol(SECRET)],
      ['a function', () => () => SECRET],
      ['a promise of a number', async () => 7_113],
      ['an array with an empty string', () => [SECRET, '']],
      ['an array with a number', () => [SECRET, 7_113]],
      ['a lone surrogate', () => `${SECRET}\ud800`],
    ] as const) {
      it(`is an error of the app, not the client's: ${what}`, async () => {
        const app = await start(give)
        const answer = await ask(app.url, SECRET)
        expect(answer.status).to.equal(500)
        expect(answer.text).to.not.include(SECRET)
        expect(answer.text).to.not.include('7113')
        expect(app.mutex.stats()).to.include({ held: 0, acquired: 0 })
      })
    }

    for (const [what, give] of [
      [
        'throws',
        () => {
          throw new Error('no key')
        },
      ],
      ['rejects', () => Promise.reject(new Error('no key'))],
      ['rejects with nothing', () => Promise.reject()],
      ["rejects with a router's command", () => Promise.reject('route')],
      [
        "throws a router's command",
        () => {
          throw 'router'
        },
      ],
    ] as const) {
      it(`is an error when it ${what}, and the handler never runs`, async () => {
        let ran = false
        const app = await framework.start(key(give), ({ send }) => {
          ran = true
          send('done')
        })
        expect((await ask(app.url, SECRET)).status).to.equal(500)
        expect(ran).to.equal(false)
      })
    }

    it('keeps the status of an error that has one', async () => {
      const app = await start(() => {
        throw Object.assign(new Error('who are you'), { statusCode: 401, status: 401 })
      })
      expect((await ask(app.url, SECRET)).status).to.equal(401)
    })

    it('is not asked for when skip says so, by promise too', async () => {
      for (const skip of [() => true, async () => true]) {
        const app = await framework.start({ skip, keyFrom: byUser }, ({ lock, send }) =>
          send(String(lock ?? 'none')),
        )
        expect(await ask(app.url, SECRET)).to.include({ status: 200, text: 'none' })
      }
      const skip = async () => false
      const app = await framework.start({ skip, keyFrom: byUser }, ({ lock, send }) =>
        send(lock ? 'locked' : 'none'),
      )
      expect(await ask(app.url, SECRET)).to.include({ status: 200, text: 'locked' })
    })
  })
}

/** The next process warning of this name. */
function nextWarning(name: string): Signal<Error> {
  const signal = new Signal<Error>()
  const listen = (warning: Error) => {
    if (warning.name !== name) return
    process.off('warning', listen)
    signal.fire(warning)
  }
  process.on('warning', listen)
  return signal
}
