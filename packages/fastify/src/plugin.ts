import { setTimeout as sleep } from 'node:timers/promises'
import type { Lock } from '@redismutex/core'
import { Exchange, Gate, Passage, type Refusal } from '@redismutex/core/request'
import type {
  FastifyInstance,
  FastifyPluginAsync,
  FastifyReply,
  FastifyRequest,
  RouteOptions,
} from 'fastify'
import fastifyPlugin from 'fastify-plugin'
import { assertHook, type OnBusy, pluginOptionNames, type RequestLockOptions } from './options.js'
import { refuse } from './refuse.js'
import { type LockedRoute, REGISTRATION, Registration } from './route.js'

type Done = (error?: Error) => void

async function plugin(app: FastifyInstance, options: RequestLockOptions): Promise<void> {
  const gate = Gate.of<FastifyRequest, OnBusy>(options, pluginOptionNames)
  const hook = options.hook ?? 'preHandler'
  assertHook(hook)
  const registration = new Registration(gate, {
    // Whoever chose an earlier hook has the key made before that.
    ...(hook === 'preHandler' && { preHandler: requestLockAgain }),
    ...((hook === 'onRequest' || hook === 'preParsing') && { preParsing: requestLockUnread }),
  })
  let drained: Promise<void> | undefined

  function requestLockRoute(this: FastifyInstance, route: RouteOptions): void {
    registration.declare(this, route)
  }

  /** Watched from the first hook on: a client that leaves is never missed, nor an early answer. */
  function requestLockWatch(request: FastifyRequest, reply: FastifyReply, next: Done): void {
    try {
      if (registration.routeOf(request)) Exchange.watch(request.raw, reply.raw)
      else registration.assertSeen(request)
    } catch (error) {
      next(error as Error)
      return
    }
    next()
  }

  function requestLockWait(request: FastifyRequest, reply: FastifyReply, next: Done): void {
    const exchange = Exchange.of(reply.raw)
    const route = exchange && registration.routeOf(request)
    if (route) new ThroughFastify(route, request, reply, exchange, next).begin()
    else next()
  }

  /** Hooks behind the plugin's own may be what makes the key. */
  function requestLockAgain(request: FastifyRequest, reply: FastifyReply, next: Done): void {
    if (unnamed.delete(request)) requestLockWait(request, reply, next)
    else next()
  }

  function requestLockPreParsing(
    request: FastifyRequest,
    reply: FastifyReply,
    _payload: unknown,
    next: Done,
  ): void {
    requestLockWait(request, reply, next)
  }

  /** Fastify would wait for ever for a body of which no more can come. */
  function requestLockUnread(
    _request: FastifyRequest,
    reply: FastifyReply,
    _payload: unknown,
    next: Done,
  ): void {
    const exchange = Exchange.of(reply.raw)
    if (!exchange?.gone || !exchange.holds.any) {
      next()
      return
    }
    exchange.holds.drop()
    if (!reply.sent) reply.hijack()
  }

  function requestLockPreClose(next: () => void): void {
    drained = gate.mutex.drain()
    next()
  }

  async function requestLockOnClose(): Promise<void> {
    // Every request has been answered. A handler that works on for a client that has left may never
    // end: it gets as long as if the process had crashed.
    const patience = new AbortController()
    const late = sleep(gate.lease, undefined, { signal: patience.signal }).catch(() => {})
    await Promise.race([drained ?? gate.mutex.drain(), late])
    patience.abort()
    await gate.mutex.close()
  }

  app.decorate('mutex', gate.mutex)
  app.decorate(REGISTRATION, registration)
  if (!app.hasRequestDecorator('lock')) app.decorateRequest('lock', null)
  app.addHook('onRoute', requestLockRoute)
  app.addHook('onRequest', requestLockWatch)
  if (hook === 'preParsing') app.addHook(hook, requestLockPreParsing)
  else app.addHook(hook as 'onRequest', requestLockWait)
  app.addHook('preClose', requestLockPreClose)
  app.addHook('onClose', requestLockOnClose)
}

/** Requests that named nothing to lock when they were asked first, and are asked once more. */
const unnamed = new WeakSet<FastifyRequest>()

/** A request's way through the plugin's hook. */
class ThroughFastify extends Passage<FastifyRequest, OnBusy> {
  constructor(
    private readonly route: LockedRoute,
    request: FastifyRequest,
    private readonly reply: FastifyReply,
    exchange: Exchange,
    next: Done,
  ) {
    super(route.gate, request, exchange, next)
  }

  protected admitted(lock: Lock): void {
    this.request.lock = lock
    if (this.gate.serverTiming) addTiming(this.reply, lock.waited)
  }

  protected override unnamed(): void {
    if (this.route.registration.last.preHandler) unnamed.add(this.request)
  }

  protected refused(refusal: Refusal): Promise<void> {
    return refuse(this.request, this.reply, refusal, this.route)
  }

  /** Fastify is to leave this reply alone. */
  protected gone(): void {
    if (!this.reply.sent) this.reply.hijack()
  }
}

function addTiming(reply: FastifyReply, waited: number): void {
  const known = reply.getHeader('server-timing')
  const timing = `lock;dur=${waited.toFixed(1)}`
  reply.header('server-timing', known === undefined ? timing : `${known}, ${timing}`)
}

/**
 * A Fastify plugin that runs the requests of one key one at a time: each holds the lock until the
 * server has ended its response and the handler is done.
 *
 * With a `keyFrom`, routes declared after it take locks for POST, PUT, PATCH and DELETE. A route takes
 * one whatever its method with `config: { lock: true }` or `{ lock: { …options } }`; `false` takes
 * none. It decorates the app with `mutex` and requests with `lock`. In a context of its own it is for
 * the routes there.
 *
 * Await it before the routes: one that was declared before takes no lock, and a request for it fails
 * if it has asked for one.
 *
 * @throws TypeError, RangeError for wrong options: each names the option, the value and the rule
 * @example
 * await app.register(requestLock, { redis, keyFrom: ({ user }) => (user ? `user:${user.id}` : null) })
 * app.post('/cart', handler)
 * app.get('/report', { config: { lock: { blocking: false } } }, handler)
 */
export const requestLock: FastifyPluginAsync<RequestLockOptions> = fastifyPlugin(plugin, {
  name: '@redismutex/fastify',
  fastify: '5.x',
})
