import fastifyCookie from '@fastify/cookie'
import fastifySession from '@fastify/session'
import { requestLock } from '@redismutex/express'
import fastifyLock from '@redismutex/fastify'
import { expect } from 'chai'
import express5 from 'express'
import expressSession from 'express-session'
import express4 from 'express4'
import fastify from 'fastify'
import { freshPrefix } from '../support/redis.js'
import { type Asked, ask, type RunningApp, redis, running, until } from './harness.js'

const REQUESTS = 200
const SECRET = 'a secret of at least thirty-two letters'

/** Sessions that two servers share: each is read and written as a whole, and not at once. */
class Sessions extends expressSession.Store {
  readonly #all = new Map<string, string>()

  override get(id: string, done: (error: unknown, session?: never) => void): void {
    const session = this.#all.get(id)
    setTimeout(() => done(null, session && JSON.parse(session)), 1)
  }

  override set(id: string, session: object, done?: (error?: unknown) => void): void {
    const text = JSON.stringify(session)
    setTimeout(() => {
      this.#all.set(id, text)
      done?.()
    }, 1)
  }

  override destroy(id: string, done?: (error?: unknown) => void): void {
    this.#all.delete(id)
    done?.()
  }
}

/** A key from the cookie alone: nothing else is known before a session has been read. */
const options = (keyPrefix: string) => ({
  redis: redis(),
  keyPrefix,
  keyFrom: ({ headers }: Pick<Asked, 'headers'>) => headers.cookie,
  blockTime: 60_000,
  maxWaiting: REQUESTS,
})

interface Counting {
  added?: string[]
}

/** Adds to the session what the request brings. */
function add(session: unknown, item: string): string[] {
  const counting = session as Counting
  counting.added = [...(counting.added ?? []), item]
  return counting.added
}

async function startExpress(
  express: typeof express5,
  store: Sessions,
  keyPrefix: string,
): Promise<RunningApp> {
  const lock = requestLock(options(keyPrefix))
  const app = express()
  app.use(lock)
  app.use(
    expressSession({
      store,
      secret: SECRET,
      resave: false,
      saveUninitialized: true,
    }),
  )
  app.post('/:item', (req, res) => {
    res.json(add(req.session, String(req.params.item)))
  })
  return running(app.listen(0, '127.0.0.1'), lock.mutex, () => lock.close())
}

async function startFastify(store: Sessions, keyPrefix: string): Promise<RunningApp> {
  const app = fastify()
  // Before the session is read.
  await app.register(fastifyLock, { ...options(keyPrefix), hook: 'onRequest' })
  await app.register(fastifyCookie)
  await app.register(fastifySession, {
    store: store as never,
    secret: SECRET,
    cookie: { secure: false },
  })
  app.post('/:item', async (request) =>
    add(request.session, (request.params as { item: string }).item),
  )
  await app.listen({ port: 0, host: '127.0.0.1' })
  return running(app.server, app.mutex, () => app.close())
}

const kinds = {
  'express-session in Express 5': (store: Sessions, prefix: string) =>
    startExpress(express5, store, prefix),
  'express-session in Express 4': (store: Sessions, prefix: string) =>
    startExpress(express4 as unknown as typeof express5, store, prefix),
  '@fastify/session': startFastify,
}

describe('a session that is read under the lock', () => {
  for (const [name, start] of Object.entries(kinds)) {
    it(`loses nothing of ${REQUESTS} requests at once to two servers: ${name}`, async () => {
      const store = new Sessions()
      const keyPrefix = freshPrefix()
      const apps = [await start(store, keyPrefix), await start(store, keyPrefix)]
      const first = await ask(`${apps[0]?.url}/first`, undefined)
      const cookie = (first.headers.get('set-cookie') ?? '').split(';')[0] ?? ''
      expect(cookie).to.include('=')
      const items = Array.from({ length: REQUESTS }, (_, i) => String(i))
      const answers = await Promise.all(
        items.map((item, i) =>
          ask(`${apps[i % 2]?.url}/${item}`, undefined, {
            headers: { cookie },
            signal: AbortSignal.timeout(60_000),
          }),
        ),
      )
      for (const { status } of answers) expect(status).to.equal(200)
      const last = await ask(`${apps[0]?.url}/last`, undefined, { headers: { cookie } })
      expect(JSON.parse(last.text)).to.have.members(['first', ...items, 'last'])
      for (const { mutex } of apps) {
        await until(() => mutex.stats().held === 0, 'the releases')
        expect(mutex.stats()).to.include({ lost: 0, refused: 0 })
      }
    })
  }
})
