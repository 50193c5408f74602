import type { Lock, Mutex } from '@redismutex/core'
import {
  Exchange,
  Gate,
  GONE,
  isThenable,
  Refusal,
  type RefusalError,
  type RequestLockOptions as SharedOptions,
  type Verdict,
} from '@redismutex/core/request'
import type { NextFunction, Request, RequestHandler, Response } from 'express'
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

/** The middleware. */
export interface RequestLock extends RequestHandler {
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
    pass(req, res, next, Exchange.watch(req, res))
  }

  function pass(req: Request, res: Response, next: NextFunction, exchange: Exchange): void {
    // `next(undefined)` would go on as if nothing had happened.
    const failed = (error: unknown) =>
      goOn(next, error || new Error('onBusy has rejected with nothing'))
    const decided = (verdict: Verdict) => {
      try {
        if (verdict === GONE) return
        if (verdict instanceof Refusal) {
          refuse(req, res, next, verdict).catch(failed)
          return
        }
        if (verdict) {
          req.lock = verdict
          if (gate.serverTiming && !res.headersSent) {
            res.append('Server-Timing', `lock;dur=${verdict.waited.toFixed(1)}`)
          }
        }
      } catch (error) {
        failed(error)
        return
      }
      exchange.holds.run(() => goOn(next))
    }
    try {
      const admitted = gate.admit(req, exchange)
      if (isThenable(admitted)) admitted.then(decided, failed)
      else decided(admitted)
    } catch (error) {
      failed(error)
    }
  }

  async function refuse(
    req: Request,
    res: Response,
    next: NextFunction,
    refusal: Refusal,
  ): Promise<void> {
    if (gate.onBusy) await gate.onBusy(req, res, next, refusal.error)
    // Somebody has begun to answer: only the app's error handling can tell what to do.
    else if (res.headersSent) next(refusal.error)
    else refusal.answer(req, res)
  }

  return Object.assign(requestLock, {
    mutex: gate.mutex,
    close() {
      closing ??= gate.mutex.drain().then(() => gate.mutex.close())
      return closing
    },
  })
}

/** What the rest of the app throws past Express is nothing of ours, nor a rejection. */
function goOn(next: NextFunction, error?: unknown): void {
  try {
    next(error)
  } catch (thrown) {
    process.nextTick(() => {
      throw thrown
    })
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
 * app.post('/cart', requestLock({ redis, keyFrom: (req) => req.user?.id }), handler)
 */
export const requestLock: {
  (options: RequestLockOptions): RequestLock
  wrap: typeof wrap
} = Object.assign(create, { wrap })
