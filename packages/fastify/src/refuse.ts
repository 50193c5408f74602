import type { Refusal } from '@redismutex/core/request'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { LockedRoute } from './route.js'

/**
 * Answers a request that did not get its lock: by `onBusy`, by the app's own error handler, or by
 * the problem document.
 *
 * @throws what is for Fastify's error handling
 */
export async function refuse(
  request: FastifyRequest,
  reply: FastifyReply,
  refusal: Refusal,
  route: LockedRoute,
): Promise<void> {
  const { onBusy } = route.gate
  if (onBusy) {
    // What it does not say stays as it would have been.
    reply.code(refusal.status).headers(refusal.error.headers)
    await answer(reply, onBusy(request, reply, refusal.error))
  } else if (route.handlesErrors || handlesErrors(request)) {
    throw refusal.error
  } else {
    // A string, since an object would lose what the schema of a response does not name.
    reply.code(refusal.status).headers(refusal.headers).send(refusal.body)
  }
}

/** Sends what `onBusy` gave as Fastify does for a handler. */
async function answer(reply: FastifyReply, given: unknown): Promise<void> {
  if (given === undefined) return
  const payload = await given
  if (payload === reply || reply.sent || reply.raw.headersSent) return
  reply.send(payload)
}

/** Has the app, or the context of the route, an error handler of its own? */
function handlesErrors(request: FastifyRequest): boolean {
  return request.server.errorHandler.name !== 'defaultErrorHandler'
}
