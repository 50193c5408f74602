import { once } from 'node:events'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Lock, type Mutex, memoryStore, type Store } from '@redismutex/core'
import { requestLock as expressLock } from '@redismutex/express'
import fastifyLock from '@redismutex/fastify'
import express5 from 'express'
import express4 from 'express4'
import fastify from 'fastify'
import { atEnd } from '../support/cleanup.js'
import { type ClientOptions, redisClients } from '../support/clients.js'
import { freshPrefix, sharedRedis } from '../support/redis.js'

/** Longer than anything here takes on a busy machine, shorter than a test may take. */
export const PATIENCE = 10_000

/** What all frameworks let a key be made from. */
export interface Asked {
  readonly method: string
  readonly url: string
  readonly headers: IncomingMessage['headers']
}

/** The options that mean the same everywhere. */
export interface LockSetup {
  store?: Store
  redis?: ReturnType<(typeof redisClients)[number]['create']>
  keyPrefix?: string
  mutex?: Mutex
  // biome-ignore lint/suspicious/noExplicitAny: tests give keys that are none
  keyFrom?: (request: Asked) => any
  // biome-ignore lint/suspicious/noExplicitAny: and promises where there should be none
  skip?: (request: Asked) => any
  methods?: readonly string[]
  blocking?: boolean
  blockTime?: number
  delay?: number
  expiry?: number
  lease?: number
  storeTimeout?: number
  maxWaiting?: number
  statusCode?: number
  onStoreError?: 'fail' | 'pass'
  onClientAbort?: 'keep' | 'release'
  awaitRelease?: boolean
  serverTiming?: boolean
  /** Not of the lock: what is done to each response before it. */
  before?: (res: ServerResponse) => void
}

/** A request as a handler sees it. */
export interface Context {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  readonly lock: Lock | null | undefined
  /** Answers by the framework's own means. */
  send(body: unknown, status?: number): void
  /** Answers without the framework from here on. */
  takeOver(): ServerResponse
}

export type Handler = (context: Context) => unknown

export interface RunningApp {
  readonly url: string
  readonly port: number
  readonly server: Server
  readonly mutex: Mutex
  /** Ends the lock: `close()` in Express, the whole app's in Fastify. */
  close(): Promise<void>
}

export interface Framework {
  readonly name: string
  /** Does it know when a handler is done? */
  readonly seesHandlers: boolean
  /** Serves `/` with all methods, locked as a whole, for the requests that `x-user` names. */
  start(setup: LockSetup, handler: Handler): Promise<RunningApp>
}

export const byUser = ({ headers }: Asked): string | undefined => {
  const user = headers['x-user']
  return typeof user === 'string' ? user : undefined
}

const expressApp = (name: string, express: typeof express5, wrapped: boolean): Framework => ({
  name,
  seesHandlers: wrapped,
  async start({ before, ...setup }, handler) {
    const app = express()
    app.set('env', 'test')
    if (before) {
      app.use((_req, res, next) => {
        before(res)
        next()
      })
    }
    const lock = expressLock({ keyFrom: byUser, ...setup })
    app.use(lock)
    const run: express5.RequestHandler = (req, res) =>
      handler({
        req,
        res,
        lock: req.lock,
        send: (body, status = 200) => res.status(status).send(body),
        takeOver: () => res,
      })
    app.use(wrapped ? expressLock.wrap(run) : run)
    const server = app.listen(0, '127.0.0.1')
    return running(server, lock.mutex, () => lock.close())
  },
})

const fastifyApp: Framework = {
  name: 'Fastify',
  seesHandlers: true,
  async start({ before, ...setup }, handler) {
    const app = fastify({ exposeHeadRoutes: false })
    if (before) app.addHook('onRequest', async (_request, reply) => before(reply.raw))
    await app.register(fastifyLock, { keyFrom: byUser, ...setup })
    app.route({
      method: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'],
      url: '/*',
      handler: (request, reply) =>
        handler({
          req: request.raw,
          res: reply.raw,
          lock: request.lock,
          send: (body, status = 200) => void reply.code(status).send(body),
          takeOver: () => reply.hijack().raw,
        }),
    })
    await app.listen({ port: 0, host: '127.0.0.1' })
    return running(app.server, app.mutex, () => app.close())
  },
}

const express4App = express4 as unknown as typeof express5

/** With handlers of which it is known when they are done. */
export const frameworks: readonly Framework[] = [
  expressApp('Express 5', express5, true),
  expressApp('Express 4', express4App, true),
  fastifyApp,
]

/** Also with plain Express handlers, where the end of the response stands for the handler's. */
export const allFrameworks: readonly Framework[] = [
  ...frameworks,
  expressApp('Express 5, plain', express5, false),
  expressApp('Express 4, plain', express4App, false),
]

/** Where locks are kept. */
export const stores: readonly { name: string; setup(): LockSetup }[] = [
  { name: 'memory', setup: () => ({ store: memoryStore() }) },
  { name: 'Redis', setup: () => ({ redis: redis(), keyPrefix: freshPrefix() }) },
]

/** A client of the run's Redis, or of the one on another port. */
export function redis(
  port: number = sharedRedis().port,
  options?: ClientOptions,
): NonNullable<LockSetup['redis']> {
  const [newest] = redisClients
  if (!newest) throw new Error('there is no Redis client')
  return newest.create(port, options)
}

/** A server that listens; everything of it is closed at the end of the test. */
export async function running(
  server: Server,
  mutex: Mutex,
  close: () => Promise<void>,
): Promise<RunningApp> {
  if (!server.listening) await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  atEnd(async () => {
    server.closeAllConnections()
    await within(close(), 'closing')
    if (server.listening) {
      server.close()
      await once(server, 'close')
    }
  })
  return { url: `http://127.0.0.1:${port}`, port, server, mutex, close }
}

/** A promise to be settled from outside. */
export class Signal<T = void> {
  readonly promise: Promise<T>
  fire!: (value: T) => void

  constructor() {
    this.promise = new Promise((resolve) => {
      this.fire = resolve
    })
  }

  /** It has fired, within reason. */
  wait(what: string): Promise<T> {
    return within(this.promise, what)
  }
}

/** Gives what the promise gives, or says what it was that did not come. */
export async function within<T>(promise: Promise<T>, what: string, ms = PATIENCE): Promise<T> {
  const over = new AbortController()
  const late = sleep(ms, undefined, { signal: over.signal }).then(() => {
    throw new Error(`${what}: not within ${ms} ms`)
  })
  late.catch(() => {})
  try {
    return await Promise.race([promise, late])
  } finally {
    over.abort()
  }
}

/** Waits for what no event tells of. */
export async function until(holds: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + PATIENCE
  while (!holds()) {
    if (performance.now() > deadline) throw new Error(`${what}: not within ${PATIENCE} ms`)
    await sleep(2)
  }
}

export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly text: string
}

/** Sends one request of a user. */
export async function ask(
  url: string,
  user: string | undefined,
  init: RequestInit & { headers?: Record<string, string> } = {},
): Promise<Answer> {
  const response = await fetch(url, {
    method: 'POST',
    redirect: 'manual',
    ...init,
    headers: { ...(user === undefined ? {} : { 'x-user': user }), ...init.headers },
    signal: init.signal ?? AbortSignal.timeout(PATIENCE),
  })
  return { status: response.status, headers: response.headers, text: await response.text() }
}
