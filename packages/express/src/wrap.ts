import { Exchange, isThenable } from '@redismutex/core/request'
import type { NextFunction, Request, RequestHandler, Response } from 'express'

/** A handler that may give a promise, or call `next` as middleware does. */
// biome-ignore lint/suspicious/noExplicitAny: an interface would be none of `unknown`
export type AnyHandler<P, ResBody, ReqBody, Query, Locals extends Record<string, any>> = (
  req: Request<P, ResBody, ReqBody, Query, Locals>,
  res: Response<ResBody, Locals>,
  next: NextFunction,
) => unknown

/**
 * Wraps a handler so that its request's lock is held until the handler is done, not only until it
 * has answered, and so that it is given back when a handler ends after its client has left.
 *
 * Done is when the promise that the handler gives has settled; for a handler that gives none the end
 * of the response stands for it. If its client has left then, a handler that takes `next` and has not
 * called it may still do so: that is waited for until the lease is over, 10 s or less.
 * What it throws or rejects with goes to `next`, on Express 4 too.
 *
 * @throws TypeError for what is no handler
 * @example
 * app.post('/cart', requestLock({ keyFrom }), requestLock.wrap(async (req, res) => {
 *   res.status(202).end()
 *   await index(req.body) // still under the lock
 * }))
 */
export function wrap<
  P = Request['params'],
  ResBody = unknown,
  ReqBody = Request['body'],
  Query = Request['query'],
  // biome-ignore lint/suspicious/noExplicitAny: an interface would be none of `unknown`
  Locals extends Record<string, any> = Response['locals'],
>(
  handler: AnyHandler<P, ResBody, ReqBody, Query, Locals>,
): RequestHandler<P, ResBody, ReqBody, Query, Locals> {
  if (typeof handler !== 'function' || handler.length > 3) {
    throw new TypeError(
      `handler must be a function of (req, res, next), got ${
        typeof handler === 'function' ? `one of ${handler.length} arguments` : typeof handler
      }`,
    )
  }
  // Who takes `next` may have left it to a callback: whoever comes behind is to run under the lock, too.
  const left = handler.length < 3 ? 'nobody' : 'unknown'
  const wrapped: RequestHandler<P, ResBody, ReqBody, Query, Locals> = (req, res, next) => {
    const holds = Exchange.of(res)?.holds
    let passedOn = false
    const broken = () => {
      // After the first byte nobody is left to answer.
      if (!passedOn && res.headersSent) holds?.drop()
    }
    const passOn = ((signal?: unknown) => {
      if (isError(signal)) broken()
      passedOn = true
      holds?.passOn()
      next(signal)
    }) as NextFunction
    const failed = (error: unknown) => {
      broken()
      holds?.done('unknown')
      next(error)
    }

    holds?.begin()
    let result: unknown
    try {
      result = holds ? holds.run(() => handler(req, res, passOn)) : handler(req, res, passOn)
    } catch (error) {
      failed(error)
      return
    }
    if (!isThenable(result)) {
      holds?.done('unknown')
      return
    }
    result.then(
      () => holds?.done(passedOn ? undefined : left),
      // `next(undefined)` would go on as if nothing had happened.
      (error) => failed(error || new Error('Rejected promise')),
    )
  }
  Object.defineProperty(wrapped, 'name', { value: handler.name, configurable: true })
  return wrapped
}

/** Is it an error, and not where to go on? */
function isError(signal: unknown): boolean {
  return signal !== undefined && signal !== null && signal !== 'route' && signal !== 'router'
}
