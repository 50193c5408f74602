import { setTimeout as sleep } from 'node:timers/promises'
import { memoryStore } from '@redismutex/core'
import { requestLock } from '@redismutex/express'
import fastifyLock from '@redismutex/fastify'
import { expect } from 'chai'
import express5 from 'express'
import express4 from 'express4'
import fastify from 'fastify'
import { atEnd } from '../support/cleanup.js'
import { freshPrefix } from '../support/redis.js'
import {
  allFrameworks,
  ask,
  byUser,
  frameworks,
  redis,
  running,
  Signal,
  stores,
  until,
  within,
} from './harness.js'
import { request, WireClient } from './wire.js'

/** What has cost other libraries their locks. The rest of the traps are where their subject is. */
for (const { name, setup } of stores) {
  for (const framework of allFrameworks) {
    describe(`Traps on the way of a lock in ${framework.name}, ${name}`, () => {
      it('a response queued behind another gets no event when the socket dies', async () => {
        const inside = new Signal()
        const go = new Signal()
        const app = await framework.start(setup(), async ({ req, takeOver, send }) => {
          if (req.headers['x-user'] === 'slow') {
            inside.fire()
            await go.promise
          }
          if (req.url !== '/queued') {
            send('done')
            return
          }
          const res = takeOver()
          res.write('half')
          await go.promise
          res.end()
        })
        const client = await WireClient.connect(app.port)
        client.write(request('slow', 'POST /') + request('ann', 'POST /queued'))
        await inside.wait('the first handler')
        await until(() => app.mutex.stats().held === 2, 'both to hold')
        client.leave()
        const next = ask(app.url, 'ann')
        await until(() => app.mutex.stats().waiting === 1, 'the next one in line')
        go.fire()
        expect((await next).status).to.equal(200)
        await until(() => app.mutex.stats().held === 0, 'the release')
      })

      it('a request that waits behind another on its connection leaves when the socket dies', async () => {
        const go = new Signal()
        const ran: string[] = []
        const app = await framework.start(setup(), async ({ req, send }) => {
          ran.push(req.url as string)
          await go.promise
          send('done')
        })
        const client = await WireClient.connect(app.port)
        client.request('ann', 'POST /1', 'POST /2', 'POST /3')
        await until(() => app.mutex.stats().waiting === 2, 'two in line')
        client.leave()
        await until(() => app.mutex.stats().waiting === 0, 'the places given up')
        go.fire()
        await until(() => app.mutex.stats().held === 0, 'the release')
        expect(ran).to.deep.equal(['/1'])
      })

      it('the second of two pipelined requests gets the lock first, and its bytes can not leave', async () => {
        const second = new Signal()
        const keyFrom = async ({ url }: { url: string }) => {
          if (url === '/1') await second.promise
          return 'ann'
        }
        const app = await framework.start({ ...setup(), keyFrom }, async ({ req, send }) => {
          if (req.url === '/2') {
            second.fire()
            await until(() => app.mutex.stats().waiting === 1, 'the first in line')
          }
          send(req.url)
        })
        const client = await WireClient.connect(app.port)
        client.request('ann', 'POST /1', 'POST /2')
        expect(await client.answer()).to.include({ status: 200, body: '/1' })
        expect(await client.answer()).to.include({ status: 200, body: '/2' })
      })

      it('a slow reader of a large answer does not hold the lock', async () => {
        const large = 'x'.repeat(20_000_000)
        const app = await framework.start(setup(), ({ req, send }) => {
          send(req.url === '/large' ? large : 'done')
        })
        const client = await WireClient.connect(app.port)
        client.pause()
        client.request('ann', 'POST /large')
        await until(() => app.mutex.stats().acquired === 1, 'the large answer')
        expect((await ask(app.url, 'ann')).text).to.equal('done')
        expect(app.mutex.stats().lost).to.equal(0)
      })

      it('many requests on one connection add no listeners to it', async () => {
        // The run fails for a MaxListenersExceededWarning.
        const app = await framework.start(setup(), ({ send }) => {
          setImmediate(() => send('done'))
        })
        const client = await WireClient.connect(app.port)
        client.request('ann', ...Array<string>(40).fill('POST /'))
        for (let i = 0; i < 40; i++) expect((await client.answer()).status).to.equal(200)
        let listeners = 0
        app.server.once('request', (req) => {
          listeners = req.socket.listenerCount('close')
        })
        client.request('ann')
        await client.answer()
        expect(listeners).to.be.lessThan(10)
      })

      it('a grant that comes as the client leaves is given back', async () => {
        const app = await framework.start(setup(), ({ send }) => send('done'))
        const held = await app.mutex.acquireLock('ann')
        const client = await WireClient.connect(app.port)
        client.request('ann')
        await until(() => app.mutex.stats().waiting === 1, 'the request in line')
        client.leave()
        await held.release()
        await until(() => app.mutex.stats().held === 0, 'the release')
        expect((await ask(app.url, 'ann')).status).to.equal(200)
      })

      it('a client leaves while keyFrom still looks for its key', async () => {
        const looking = new Signal()
        const found = new Signal()
        let ran = false
        const keyFrom = async ({ url }: { url: string }) => {
          if (url !== '/left') return 'ann'
          looking.fire()
          await found.promise
          return 'ann'
        }
        const app = await framework.start({ ...setup(), keyFrom }, ({ req, send }) => {
          ran ||= req.url === '/left'
          send('done')
        })
        const gone = new Signal()
        app.server.once('connection', (socket) => socket.once('close', () => gone.fire()))
        const client = await WireClient.connect(app.port)
        client.request('ann', 'POST /left')
        await looking.wait('keyFrom')
        client.leave()
        await gone.wait('the end of the connection')
        found.fire()
        expect((await ask(app.url, 'ann')).status).to.equal(200)
        expect(ran).to.equal(false)
        expect(app.mutex.stats()).to.include({ acquired: 1 })
      })

      it('a client that is killed before it has sent its whole body disturbs nobody', async () => {
        const app = await framework.start(setup(), ({ send }) => send('done'))
        const come = new Signal()
        app.server.once('request', () => come.fire())
        const client = await WireClient.connect(app.port)
        client.write('POST / HTTP/1.1\r\nHost: a\r\nX-User: ann\r\nContent-Length: 10\r\n\r\nhalf')
        await come.wait('the half request')
        client.leave(true)
        expect((await ask(app.url, 'ann')).status).to.equal(200)
        await until(() => app.mutex.stats().held === 0, 'the release')
      })
    })
  }
}

for (const framework of frameworks) {
  describe(`A handler of ${framework.name} that waits for its answer to be read`, () => {
    for (const ended of [true, false]) {
      it(`is told when it was queued ${ended ? 'as a whole' : 'in part'}, and the connection is gone`, async () => {
        const go = new Signal()
        const waiting = new Signal()
        const app = await framework.start({}, async ({ req, takeOver, send }) => {
          if (req.url === '/slow') await go.promise
          if (req.url !== '/queued') {
            send('done')
            return
          }
          const res = takeOver()
          const closed = new Promise((resolve) => res.once('close', resolve))
          if (ended) res.end('all of it')
          else res.write('some of it')
          waiting.fire()
          // As `pipeline` does, which is all that many handlers wait for.
          await closed
        })
        const client = await WireClient.connect(app.port)
        client.write(request('slow', 'POST /slow') + request('ann', 'POST /queued'))
        await waiting.wait('the queued answer')
        client.leave()
        expect((await ask(app.url, 'ann')).text).to.equal('done')
        go.fire()
        await until(() => app.mutex.stats().held === 0, 'the release')
        expect(app.mutex.stats().lost).to.equal(0)
      })
    }
  })

  describe(`Waiters in ${framework.name}`, () => {
    it('cost Redis no commands', async () => {
      const client = redis()
      const app = await framework.start(
        { redis: client, keyPrefix: freshPrefix(), blockTime: 20_000 },
        async ({ req, send }) => {
          if (req.url === '/first') await go.promise
          send('done')
        },
      )
      const go = new Signal()
      const first = ask(`${app.url}/first`, 'ann')
      await until(() => app.mutex.stats().held === 1, 'the first')
      const second = ask(app.url, 'ann')
      await until(() => app.mutex.stats().waiting === 1, 'the second')
      let commands = 0
      const { sendCommand } = client
      client.sendCommand = (...args) => {
        commands++
        return sendCommand.apply(client, args)
      }
      const rest = Array.from({ length: 20 }, () => ask(app.url, 'ann'))
      await until(() => app.mutex.stats().waiting === 21, 'the rest in line')
      expect(commands).to.equal(0)
      go.fire()
      for (const answer of await Promise.all([first, second, ...rest])) {
        expect(answer.status).to.equal(200)
      }
    })
  })

  describe(`Strange keys in ${framework.name}`, () => {
    const strange = [
      'x'.repeat(10_000),
      '{',
      '}{',
      '{}',
      '{tag}',
      '{a}{b}',
      ' spaces in it ',
      '*',
      'mutex:other',
      '__proto__',
      'constructor',
      '../../etc',
      '\u00ff\u00fe',
      '%00',
      "'; DROP TABLE users; --",
    ]
    it('from headers lock, stay under their prefix, and never grow long', async () => {
      const client = redis()
      const keyPrefix = freshPrefix()
      const inside = new Signal()
      const go = new Signal()
      let count = 0
      const app = await framework.start(
        { redis: client, keyPrefix, keyFrom: ({ headers }) => String(headers['x-user']) },
        async ({ send }) => {
          if (++count === strange.length) inside.fire()
          await go.promise
          send('done')
        },
      )
      const answers = strange.map((user) => ask(app.url, user))
      await inside.wait('all of them')
      const names = (await client.keys('*')).filter((key) => key.includes(keyPrefix))
      expect(names.length).to.be.at.least(strange.length)
      for (const key of names) expect(key.length).to.be.lessThan(600)
      go.fire()
      for (const answer of await Promise.all(answers)) expect(answer.status).to.equal(200)
    })
  })
}

describe('Traps of Express', () => {
  for (const [name, express] of [
    ['Express 5', express5],
    ['Express 4', express4 as unknown as typeof express5],
  ] as const) {
    const start = async (handler: express5.RequestHandler, json = true) => {
      const lock = requestLock({ store: memoryStore(), keyFrom: byUser })
      const app = express()
      app.set('env', 'test')
      if (json) app.use(express.json())
      app.post('/', lock, handler)
      return running(app.listen(0, '127.0.0.1'), lock.mutex, () => lock.close())
    }

    it(`${name}: a request whose body was read tells of its end too early`, async () => {
      const inside = new Signal<boolean>()
      const gone = new Signal()
      const go = new Signal()
      const app = await start(
        requestLock.wrap(async (req, res) => {
          await sleep(5)
          req.lock?.signal.addEventListener('abort', () => gone.fire())
          inside.fire(req.lock?.signal.aborted ?? true)
          await go.promise
          res.json(req.body)
        }),
      )
      const client = await WireClient.connect(app.port)
      const body = '{"a":1}'
      client.write(
        `POST / HTTP/1.1\r\nHost: a\r\nX-User: ann\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      )
      expect(await inside.wait('the handler')).to.equal(false)
      client.leave()
      await gone.wait('the signal')
      go.fire()
      await until(() => app.mutex.stats().held === 0, 'the release')
    })

    it(`${name}: a plain handler that fails after its headers were sent`, async () => {
      const lock = requestLock({ store: memoryStore(), keyFrom: byUser, lease: 200 })
      const app = express()
      app.set('env', 'test')
      app.post('/bad', lock, (_req, res, next) => {
        res.write('half')
        next(new Error('late'))
      })
      app.post('/', lock, (_req, res) => void res.send('done'))
      const { url, port } = await running(app.listen(0, '127.0.0.1'), lock.mutex, () =>
        lock.close(),
      )
      const client = await WireClient.connect(port)
      client.request('ann', 'POST /bad')
      await client.end()
      // Express closes the connection, and nobody ends the response: the lease ends the lock.
      expect((await ask(url, 'ann')).text).to.equal('done')
    })
  }
})

describe('Traps of Fastify', () => {
  it('onRequestAbort and request.signal come too early or never once a body was read', async () => {
    const app = fastify()
    atEnd(() => {
      app.server.closeAllConnections()
      return within(app.close(), 'closing')
    })
    await app.register(fastifyLock, { store: memoryStore(), keyFrom: byUser })
    const inside = new Signal<boolean>()
    const gone = new Signal()
    const go = new Signal()
    app.post('/', async (request) => {
      await sleep(5)
      request.lock?.signal.addEventListener('abort', () => gone.fire())
      inside.fire(request.lock?.signal.aborted ?? true)
      await go.promise
      return request.body
    })
    await app.listen({ port: 0, host: '127.0.0.1' })
    const { port } = app.server.address() as import('node:net').AddressInfo
    const client = await WireClient.connect(port)
    client.write(
      'POST / HTTP/1.1\r\nHost: a\r\nX-User: ann\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}',
    )
    expect(await inside.wait('the handler')).to.equal(false)
    client.leave()
    await gone.wait('the signal')
    expect(app.mutex.stats().held).to.equal(1)
    go.fire()
    await until(() => app.mutex.stats().held === 0, 'the release')
  })
})
