import type { Server } from 'node:http'
import { type Mutex, memoryStore } from '@redismutex/core'
import { requestLock } from '@redismutex/express'
import fastifyLock from '@redismutex/fastify'
import { expect } from 'chai'
import express5 from 'express'
import express4 from 'express4'
import fastify from 'fastify'
import { range, turns } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'
import { ask, running, Signal, until, within } from './harness.js'

interface Request {
  readonly body: unknown
  readonly user?: { readonly id: string }
}

const sources = {
  body: ({ body }: Request) => (body as { account?: string } | undefined)?.account,
  user: ({ user }: Request) => user?.id,
}

type KeyFrom = (request: Request) => string | undefined
type Work = (key: string) => Promise<void>
type Serve = (keyFrom: KeyFrom, work: Work) => Promise<{ url: string; mutex: Mutex }>

/** Who it is says the token; what it is about says the body. */
const userOf = (token: unknown) =>
  token ? { id: String(token).replace('Bearer ', '') } : undefined

const inExpress =
  (express: typeof express5): Serve =>
  async (keyFrom, work) => {
    const app = express()
    const lock = requestLock({ store: memoryStore(), keyFrom: keyFrom as never })
    app.use(express.json(), (req, _res, next) => {
      Object.assign(req, { user: userOf(req.headers.authorization) })
      next()
    })
    app.post('/', lock, (req, res, next) => {
      work(String(req.lock?.key)).then(() => res.json(req.lock?.key), next)
    })
    return running(app.listen(0, '127.0.0.1') as Server, lock.mutex, () => lock.close())
  }

/** The hook that has the body, as the README says. */
const inFastify: Serve = async (keyFrom, work) => {
  const app = fastify()
  app.decorateRequest('user', null as never)
  app.addHook('onRequest', async (request) => {
    Object.assign(request, { user: userOf(request.headers.authorization) })
  })
  await app.register(fastifyLock, {
    store: memoryStore(),
    hook: 'preHandler',
    keyFrom: keyFrom as never,
  })
  app.post('/', async ({ lock }) => {
    await work(String(lock?.key))
    return JSON.stringify(lock?.key)
  })
  await app.listen({ port: 0, host: '127.0.0.1' })
  return running(app.server, app.mutex, () => app.close())
}

const frameworks = [
  ['Express 5', inExpress(express5)],
  ['Express 4', inExpress(express4 as unknown as typeof express5)],
  ['Fastify', inFastify],
] as const

for (const [name, serve] of frameworks) {
  for (const [source, keyFrom] of Object.entries(sources)) {
    describe(`A key from req.${source} in ${name}`, () => {
      it('lets requests for the same wait, and others go on side by side', async () => {
        const inside: string[] = []
        const go = new Signal()
        const { url, mutex } = await serve(keyFrom, async (key) => {
          inside.push(key)
          await go.promise
          inside.splice(inside.indexOf(key), 1)
          expect(inside).to.not.include(key)
        })
        const post = (key: string | undefined) => {
          // The other one names neither, or somebody else.
          const headers: Record<string, string> = { 'content-type': 'application/json' }
          if (source === 'user' && key) headers.authorization = `Bearer ${key}`
          const body = JSON.stringify(source === 'body' ? { account: key } : { account: 'x' })
          return ask(url, undefined, { headers, body })
        }
        const answers = [post('a'), post('a'), post('b')]
        await until(() => inside.length === 2, 'one of each')
        await until(() => mutex.stats().waiting === 1, 'the other in line')
        expect([...inside].sort()).to.deep.equal(['a', 'b'])
        go.fire()
        const texts = (await within(Promise.all(answers), 'the answers')).map(({ text }) => text)
        expect(texts.sort()).to.deep.equal(['"a"', '"a"', '"b"'])
        expect(mutex.stats()).to.include({ acquired: 3, held: 0, waiting: 0 })
      })

      it('is none for a request that lacks it: that goes on without a lock', async () => {
        const { url, mutex } = await serve(keyFrom, async () => {})
        const headers = { 'content-type': 'application/json' }
        expect((await ask(url, undefined, { headers, body: '{}' })).status).to.equal(200)
        expect(mutex.stats()).to.include({ acquired: 0 })
      })
    })
  }
}

for (const [name, serve] of frameworks) {
  describe(`A key that comes by promise in ${name}`, () => {
    it('locks where the app has put a Promise of its own in the place of the global one', async () => {
      const original = Promise
      atEnd(() => {
        globalThis.Promise = original
      })
      globalThis.Promise = class AppPromise<T> extends original<T> {} as PromiseConstructor
      const inside: string[] = []
      const keyFrom = async () => 'ann'
      const { url } = await serve(keyFrom as never, async (key) => {
        inside.push(key)
        expect(inside).to.have.lengthOf(1)
        await turns()
        inside.pop()
      })
      const answers = await Promise.all(range(4).map(() => ask(url, undefined)))
      expect(answers.map(({ text }) => text)).to.deep.equal(Array(4).fill('"ann"'))
    })
  })
}

describe('connectionTimeout of Fastify', () => {
  for (const at of ['waits', 'works'] as const) {
    it(`cuts a request that ${at} like a client that leaves`, async () => {
      const app = fastify({ connectionTimeout: 150 })
      atEnd(() => app.close())
      await app.register(fastifyLock, { store: memoryStore(), keyFrom: () => 'ann' })
      const ran: string[] = []
      const gone = new Signal()
      const go = new Signal()
      app.post('/:what', async (request) => {
        ran.push(request.url)
        if (request.url === '/next') return 'done'
        request.lock?.signal.addEventListener('abort', () => gone.fire())
        await go.promise
        return 'late'
      })
      const url = await app.listen({ port: 0, host: '127.0.0.1' })
      const held = at === 'waits' ? await app.mutex.acquireLock('ann') : undefined
      const cut = await ask(`${url}/cut`, undefined).catch((error: unknown) => error)
      expect(cut).to.be.instanceOf(TypeError)
      if (held) {
        await until(() => app.mutex.stats().waiting === 0, 'the place given up')
        await held.release()
        expect(ran).to.deep.equal([])
      } else {
        await gone.wait('the signal')
        expect(app.mutex.stats()).to.include({ held: 1, waiting: 0 })
        go.fire()
      }
      await until(() => app.mutex.stats().held === 0, 'the release')
      expect((await ask(`${url}/next`, undefined)).text).to.equal('done')
      expect(app.mutex.stats().lost).to.equal(0)
    })
  }
})
