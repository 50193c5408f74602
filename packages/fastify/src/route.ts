import { type Gate, shown } from '@redismutex/core/request'
import type { FastifyInstance, FastifyRequest, RouteOptions } from 'fastify'
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

/** The plugin in one context. */
export class Registration {
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
    if ((app as { [REGISTRATION]?: Registration })[REGISTRATION] !== this) return
    const lock: unknown = route.config?.lock
    if (lock === false) return
    const gate = this.#gateOf(lock, route)
    const asked = lock !== undefined && !isAddedHead(route) && !setsMethods(lock)
    const methods = Array.isArray(route.method) ? route.method : [route.method]
    if (!asked && !methods.some((method) => gate.covers(method))) return
    const handlesErrors = typeof route.errorHandler === 'function'
    const locked: LockedRoute = { registration: this, gate, asked, handlesErrors }
    // A new object: the same one may configure several routes.
    route.config = Object.assign({}, route.config, { [LOCK]: locked })
    const { preParsing, preHandler } = this.last
    if (preParsing) route.preParsing = [route.preParsing ?? [], preParsing].flat()
    if (preHandler) route.preHandler = [route.preHandler ?? [], preHandler].flat()
    route.handler = withLock(route.handler)
  }

  /** How a request is locked here, if it is. */
  routeOf(request: FastifyRequest): LockedRoute | undefined {
    const { config } = request.routeOptions
    const route = (config as { [LOCK]?: LockedRoute } | undefined)?.[LOCK]
    if (route?.registration !== this) return undefined
    return route.asked || route.gate.covers(request.method) ? route : undefined
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
