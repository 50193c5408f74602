import { type Gate, shown } from '@redismutex/core/request'
import type { FastifyContextConfig, FastifyInstance, FastifyRequest, RouteOptions } from 'fastify'
import { withLock } from './handler.js'
import type { OnBusy } from './options.js'

type RouteGate = Gate<FastifyRequest, OnBusy>

/** Where an instance keeps its registration; contexts inside of it inherit it. */
export const REGISTRATION: unique symbol = Symbol('redismutex.registration')
/** Where a route's configuration keeps how it is locked. */
const LOCK: unique symbol = Symbol('redismutex.lock')

/** A route that takes locks. */
export interface LockedRoute {
  readonly registration: Registration
  readonly gate: RouteGate
  /** Did it ask for its lock, whatever the method? */
  readonly asked: boolean
  /** Has it an error handler of its own? */
  readonly handlesErrors: boolean
}

/** An instance that may have a registration. */
type Registered = { readonly [REGISTRATION]?: Registration }

/** What a route's configuration says of locks; `null` for one that was seen and takes none. */
interface Configured extends FastifyContextConfig {
  [LOCK]?: LockedRoute | null
}

const configOf = (request: FastifyRequest): Configured | undefined => request.routeOptions.config

/** The plugin in one context. */
export class Registration {
  #warned = false

  /** @param last what comes behind the hooks of a route and its context, which are behind the plugin's */
  constructor(
    readonly gate: RouteGate,
    readonly last: Pick<RouteOptions, 'preParsing' | 'preHandler'>,
  ) {}

  /**
   * Finds out whether a route that is being declared takes locks, and wraps its handler if so.
   * @throws TypeError, RangeError for a wrong `config.lock`, naming the route
   */
  declare(app: FastifyInstance, route: RouteOptions): void {
    if ((app as Registered)[REGISTRATION] !== this) return
    const lock: unknown = route.config?.lock
    if (lock === false) return
    // A new object: the same one may configure several routes.
    const config: Configured = Object.assign({}, route.config, { [LOCK]: null })
    route.config = config
    const gate = this.#gateOf(lock, route)
    const asked = lock !== undefined && !isAddedHead(route) && !setsMethods(lock)
    const methods = Array.isArray(route.method) ? route.method : [route.method]
    if (!asked && !methods.some((method) => gate.covers(method))) return
    const handlesErrors = typeof route.errorHandler === 'function'
    config[LOCK] = { registration: this, gate, asked, handlesErrors }
    const { preParsing, preHandler } = this.last
    if (preParsing) route.preParsing = [route.preParsing ?? [], preParsing].flat()
    if (preHandler) route.preHandler = [route.preHandler ?? [], preHandler].flat()
    route.handler = withLock(route.handler)
  }

  /** How a request is locked here, if it is. */
  routeOf(request: FastifyRequest): LockedRoute | undefined {
    const route = configOf(request)?.[LOCK]
    if (route?.registration !== this) return undefined
    return route.asked || route.gate.covers(request.method) ? route : undefined
  }

  /**
   * Sees to a request whose route was declared before the plugin was registered: one that has asked for
   * a lock must not go on without it, as it would when nobody has awaited `register`.
   * @throws Error for that; others that would be locked are warned of, once
   */
  assertSeen(request: FastifyRequest): void {
    const config = configOf(request)
    if (config?.[LOCK] !== undefined || config?.lock === false || request.is404) return
    if ((request.server as Registered)[REGISTRATION] !== this) return
    const { method, routeOptions } = request
    const early = `route ${method} ${routeOptions.url} was declared before requestLock was registered`
    if (config?.lock !== undefined) {
      throw new Error(`${early}: await app.register(requestLock, …) before the routes`)
    }
    if (this.#warned || !this.gate.covers(method)) return
    this.#warned = true
    process.emitWarning(
      `${early}, and takes no lock: await app.register(requestLock, …) before the routes, ` +
        'or say config: { lock: false }',
      { type: 'RequestLockWarning', code: 'REDISMUTEX_EARLY_ROUTE' },
    )
  }

  #gateOf(lock: unknown, route: RouteOptions): RouteGate {
    if (lock === undefined) return this.gate
    try {
      if (lock !== true && (typeof lock !== 'object' || lock === null)) {
        throw new TypeError(`lock must be true, false or an object of options, got ${shown(lock)}`)
      }
      const gate = lock === true ? this.gate : this.gate.with(lock, 'lock')
      gate.assertKeyFrom()
      return gate
    } catch (error) {
      if (!(error instanceof Error)) throw error
      const Wrong = error instanceof RangeError ? RangeError : TypeError
      throw new Wrong(`in the lock of route ${route.method} ${route.url}: ${error.message}`, {
        cause: error,
      })
    }
  }
}

/** Fastify declares a HEAD route for each GET route, with the same configuration. */
function isAddedHead({ method, onSend }: RouteOptions): boolean {
  if (method !== 'HEAD') return false
  const hooks: readonly { readonly name: string }[] = Array.isArray(onSend)
    ? onSend
    : onSend
      ? [onSend]
      : []
  return hooks.some(({ name }) => name === 'headRouteOnSendHandler')
}

function setsMethods(lock: unknown): boolean {
  return (lock as { methods?: unknown }).methods !== undefined
}
