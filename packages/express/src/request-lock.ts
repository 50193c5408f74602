import type { Lock, Mutex } from '@redismutex/core'
import {
  Exchange,
  Gate,
  Passage,
  type Refusal,
  type RefusalError,
  type RequestLockOptions as SharedOptions,
} from '@redismutex/core/request'
import type { NextFunction, Request, Response } from 'express'
import { isMountedInRoute } from './route.js'
import { wrap } from './wrap.js'

declare global {
  namespace Express {
    interface Request {
      /** The lock that this request holds; of several, the one that it got last. */
      lock?: Lock
    }
  }
}

/**
 * Answers a request that did not get its lock, or hands the error on with `next(error)`. The error
 * has `code`, `statusCode` and `headers`.
 */
export type OnBusy = (
  req: Request,
  res: Response,
  next: NextFunction,
  error: RefusalError,
) => unknown

/** The options of `requestLock`: those of a mutex, where the locks are, and how requests take them. */
export interface RequestLockOptions extends SharedOptions<Request, OnBusy> {
  keyFrom: NonNullable<SharedOptions<Request, OnBusy>['keyFrom']>
}

/** The middleware. It fits any route, and leaves it to the route what its parameters and body are. */
export interface RequestLock {
  // biome-ignore lint/suspicious/noExplicitAny: an interface would be none of `unknown`
  <P, ResBody, ReqBody, Query, Locals extends Record<string, any>>(
    req: Request<P, ResBody, ReqBody, Query, Locals>,
    res: Response<ResBody, Locals>,
    next: NextFunction,
  ): void
  /** What it locks with, for work outside of requests, and for `stats()`. */
  readonly mutex: Mutex
  /**
   * Ends it: those who wait get 503 at once, those who hold finish, then the mutex is closed.
   * Resolves then.
   */
  close(): Promise<void>
}

/** Makes the middleware. */
function create(options: RequestLockOptions): RequestLock {
  const gate = Gate.of<Request, OnBusy>(options)
  gate.assertKeyFrom()
  const inRoutes = options.methods === undefined
  let closing: Promise<void> | undefined

  function requestLock(req: Request, res: Response, next: NextFunction): void {
    if (!gate.covers(req.method) && !(inRoutes && isMountedInRoute(requestLock, req))) {
      next()
      return
    }
    // Watched from here on, before anything is waited for.
    new ThroughExpress(gate, req, res, next).begin()
  }

  return Object.assign(requestLock as RequestLock, {
    mutex: gate.mutex,
    close() {
      closing ??= gate.mutex.drain().then(() => gate.mutex.close())
      return closing
    },
  })
}

/** A request's way through the middleware. */
class ThroughExpress extends Passage<Request, OnBusy> {
  declare protected readonly next: NextFunction

  constructor(
    gate: Gate<Request, OnBusy>,
    req: Request,
    private readonly res: Response,
    next: NextFunction,
  ) {
    super(gate, req, Exchange.watch(req, res), next)
  }

  protected admitted(lock: Lock): void {
    const { request, res } = this
    request.lock = lock
    if (this.gate.serverTiming && !res.headersSent) {
      res.append('Server-Timing', `lock;dur=${lock.waited.toFixed(1)}`)
    }
  }

  protected async refused(refusal: Refusal): Promise<void> {
    const { request, res, next } = this
    const { onBusy } = this.gate
    if (onBusy) await onBusy(request, res, next, refusal.error)
    // Somebody has begun to answer: only the app's error handling can tell what to do.
    else if (res.headersSent) next(refusal.error)
    else refusal.answer(request, res)
  }

  /** Express waits for nobody; nobody comes behind, who would end what the request holds already. */
  protected gone(): void {
    this.exchange.holds.drop()
  }
}

/**
 * Makes a middleware that runs the requests of one key one at a time: each holds the lock from here
 * until the server has ended its response.
 *
 * Mounted in a route (`app.post(path, requestLock(…), handler)`) it locks whatever the route's method
 * is, but for the HEAD requests that a GET route answers too; mounted with `app.use` it locks POST,
 * PUT, PATCH and DELETE. Setting `methods` decides for both.
 *
 * @throws TypeError, RangeError for wrong options: each names the option, the value and the rule
 * @example
 * const keyFrom = (req) => (req.user ? `user:${req.user.id}` : null)
 * app.post('/cart', requestLock({ redis, keyFrom }), handler)
 */
export const requestLock: {
  (options: RequestLockOptions): RequestLock
  wrap: typeof wrap
} = Object.assign(create, { wrap })
