import { tracingChannel } from 'node:diagnostics_channel'
import { EventEmitter } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { BlockTimeExceedError, Mutex, MutexReentryError, memoryStore } from '@redismutex/core'
import { requestLock } from '@redismutex/express'
import fastifyLock from '@redismutex/fastify'
import { expect } from 'chai'
import express5 from 'express'
import fastify, { type FastifyRequest } from 'fastify'
import { atEnd } from '../support/cleanup.js'
import {
  allFrameworks,
  ask,
  byUser,
  frameworks,
  running,
  Signal,
  stores,
  until,
} from './harness.js'

/** Longer than a test may take: who waited for itself would not come back. */
const NEVER = 60_000

/** What a handler may do before it asks for the lock that it holds. */
const detours: Record<string, () => unknown> = {
  'at once': () => {},
  'after a timer': () => sleep(2),
  'after a callback': () => new Promise((resolve) => setTimeout(resolve, 2)),
  'after some promises': async () => {
    for (let i = 0; i < 10; i++) await null
    await Promise.all([sleep(1), Promise.resolve()])
  },
  'after an event': () => {
    const emitter = new EventEmitter()
    setImmediate(() => emitter.emit('go'))
    return new Promise((resolve) => emitter.once('go', resolve))
  },
}

for (const { name, setup } of stores) {
  for (const framework of allFrameworks) {
    describe(`A handler of ${framework.name} that asks for the lock it holds, ${name}`, () => {
      for (const [when, detour] of Object.entries(detours)) {
        it(`is refused at once: ${when}`, async () => {
          let error: unknown
          const app = await framework.start(
            { ...setup(), blockTime: NEVER, expiry: Number.POSITIVE_INFINITY },
            async ({ send }) => {
              await detour()
              error = await app.mutex.acquireLock('ann').catch((reason) => reason)
              send('done')
            },
          )
          expect((await ask(app.url, 'ann')).status).to.equal(200)
          expect(error).to.be.instanceOf(MutexReentryError)
          expect(error).to.include({ code: 'ERR_MUTEX_REENTRY', key: 'ann' })
          expect((error as Error).message).to.match(/this request holds the lock already/)
          expect((error as Error).message).to.not.include('ann')
          expect(app.mutex.stats()).to.include({ acquired: 1, refused: 1, waiting: 0 })
        })
      }

      it('is refused by every way of asking, also among several keys', async () => {
        const errors: unknown[] = []
        const app = await framework.start(
          { ...setup(), blockTime: NEVER, expiry: Number.POSITIVE_INFINITY },
          async ({ send }) => {
            await sleep(1)
            const { mutex } = app
            for (const asked of [
              mutex.runExclusive('ann', () => {}),
              mutex.acquireLock(['zoe', 'ann', 'bob'], { signal: AbortSignal.timeout(NEVER) }),
              mutex.with({ blockTime: NEVER + 1 }).acquireLock('ann'),
              new Mutex(mutex.store, { blockTime: NEVER }).acquireLock('ann'),
            ]) {
              errors.push(await asked.catch((reason) => reason))
            }
            expect(await mutex.tryAcquire('ann')).to.equal(null)
            send('done')
          },
        )
        expect((await ask(app.url, 'ann')).status).to.equal(200)
        expect(errors).to.have.length(4)
        for (const error of errors) expect(error).to.be.instanceOf(MutexReentryError)
      })

      it('gets other locks, and its own again once it has released it', async () => {
        const app = await framework.start(
          { ...setup(), blockTime: NEVER, expiry: Number.POSITIVE_INFINITY },
          async ({ lock, send }) => {
            await app.mutex.runExclusive('bob', () => sleep(1))
            await lock?.release()
            await app.mutex.runExclusive('ann', () => sleep(1))
            send('done')
          },
        )
        expect((await ask(app.url, 'ann')).status).to.equal(200)
        expect(app.mutex.stats()).to.include({ acquired: 3, held: 0, refused: 0 })
      })

      it('does not keep others from waiting, neither requests nor what has none', async () => {
        const inside = new Signal()
        const go = new Signal()
        const order: string[] = []
        const app = await framework.start(
          { ...setup(), blockTime: NEVER },
          async ({ req, send }) => {
            order.push(String(req.url))
            if (req.url === '/first') {
              inside.fire()
              await go.promise
            }
            // Somebody else's lock, while that one holds it.
            if (req.url === '/other') await app.mutex.runExclusive('ann', () => order.push('hers'))
            send('done')
          },
        )
        const first = ask(`${app.url}/first`, 'ann')
        await inside.wait('the first handler')
        const other = ask(`${app.url}/other`, 'bob')
        await until(() => app.mutex.stats().held === 2, 'the other handler')
        await until(() => app.mutex.stats().waiting === 1, 'its ask')
        const job = app.mutex.runExclusive('ann', () => order.push('job'))
        await until(() => app.mutex.stats().waiting === 2, 'the job')
        go.fire()
        await Promise.all([first, other, job])
        expect(order).to.deep.equal(['/first', '/other', 'hers', 'job'])
      })
    })
  }
}

for (const framework of allFrameworks) {
  describe(`A handler of ${framework.name} that asks its own server for the same user`, () => {
    it('waits for itself no longer than blockTime, and the error tells', async () => {
      const refused: unknown[] = []
      const error = ({ error }: { error?: unknown }) => refused.push(error)
      tracingChannel('redismutex.acquire').subscribe({ error } as never)
      atEnd(() => tracingChannel('redismutex.acquire').unsubscribe({ error } as never))
      let inner = 0
      const app = await framework.start({ blockTime: 60 }, async ({ req, send }) => {
        if (req.url === '/outer') inner = (await ask(`${app.url}/inner`, 'ann')).status
        send('done')
      })
      expect((await ask(`${app.url}/outer`, 'ann')).status).to.equal(200)
      expect(inner).to.equal(409)
      expect(refused).to.have.length(1)
      expect(refused[0]).to.be.instanceOf(BlockTimeExceedError)
      expect((refused[0] as Error).message).to.match(/this process itself has held it for \d+ ms/)
    })
  })
}

describe('A request that asks for the lock it holds', () => {
  it('is known behind what parses its body, in Express', async () => {
    const lock = requestLock({ store: memoryStore(), keyFrom: byUser, blockTime: NEVER })
    const app = express5()
    const errors: unknown[] = []
    app.use(lock, express5.json())
    const handler: express5.RequestHandler = async (req, res) => {
      await sleep(1)
      errors.push(await lock.mutex.acquireLock('ann').catch((error) => error))
      res.json(req.body)
    }
    app.post('/plain', handler)
    app.post('/wrapped', requestLock.wrap(handler))
    const { url } = await running(app.listen(0, '127.0.0.1'), lock.mutex, () => lock.close())
    for (const path of ['/plain', '/wrapped']) {
      const headers = { 'content-type': 'application/json' }
      const answer = await ask(url + path, 'ann', { headers, body: '{"a":1}' })
      expect(answer).to.include({ status: 200, text: '{"a":1}' })
    }
    expect(errors).to.have.length(2)
    for (const error of errors) expect(error).to.be.instanceOf(MutexReentryError)
  })

  for (const hook of ['onRequest', 'preParsing', 'preValidation', 'preHandler'] as const) {
    it(`is known in Fastify when it waited in ${hook}, and in hooks as well`, async () => {
      const app = fastify()
      atEnd(() => app.close())
      await app.register(fastifyLock, {
        store: memoryStore(),
        keyFrom: byUser,
        blockTime: NEVER,
        hook,
      })
      const errors: unknown[] = []
      const asking = async (request: FastifyRequest) => {
        await sleep(1)
        errors.push(await request.server.mutex.acquireLock('ann').catch((error) => error))
      }
      app.post('/', { preHandler: asking }, async (request) => {
        await asking(request)
        return request.body
      })
      const answer = await app.inject({
        method: 'POST',
        url: '/',
        headers: { 'x-user': 'ann' },
        payload: { a: 1 },
      })
      expect(answer.json()).to.deep.equal({ a: 1 })
      expect(errors).to.have.length(2)
      for (const error of errors) expect(error).to.be.instanceOf(MutexReentryError)
    })
  }

  it('is known after an await where thousands have held before it', async () => {
    const app = fastify()
    atEnd(() => app.close())
    await app.register(fastifyLock, { store: memoryStore(), keyFrom: byUser, blockTime: NEVER })
    app.post('/', async () => 'done')
    app.post('/later', async (request) => {
      await sleep(1)
      return request.server.mutex.acquireLock('ann').catch((error) => ({ code: error.code }))
    })
    const post = (url: string) => app.inject({ method: 'POST', url, headers: { 'x-user': 'ann' } })
    for (let i = 0; i < 1100; i++) await post('/')
    expect((await post('/later')).json()).to.deep.equal({ code: 'ERR_MUTEX_REENTRY' })
  })

  for (const framework of frameworks) {
    it(`may leave the work to be done after it, in ${framework.name}: it asks once it is over`, async () => {
      const done = new Signal()
      const app = await framework.start({ blockTime: NEVER }, async ({ res, send }) => {
        res.once('close', () => {
          void app.mutex.runExclusive('ann', () => done.fire())
        })
        send('done')
      })
      const { status } = await ask(app.url, 'ann', { headers: { connection: 'close' } })
      expect(status).to.equal(200)
      await done.wait('the work')
    })
  }
})
