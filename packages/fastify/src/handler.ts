import { finished, Readable } from 'node:stream'
import { Exchange } from '@redismutex/core/request'
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'

type Handler = RouteOptions['handler']

/**
 * Sees when a handler is done: when its promise has settled, or, of one that gives none, when its
 * reply has ended.
 */
export function withLock(handler: Handler): Handler {
  const locked = function (this: FastifyInstance, request: FastifyRequest, reply: FastifyReply) {
    const exchange = Exchange.of(reply.raw)
    if (!exchange?.holding) return handler.call(this, request, reply)
    settleAtEnd(reply, exchange)
    const sending = watchSending(reply, exchange)
    exchange.begin()
    let result: ReturnType<Handler>
    try {
      result = handler.call(this, request, reply)
    } catch (error) {
      exchange.done('framework')
      throw error
    }
    if (!isThenable(result)) {
      exchange.done('unknown')
      return result
    }
    result.then(
      (payload: unknown) => {
        // Fastify sends no empty answer to a client that has left; what is being sent comes to its end.
        const dropped = payload === undefined && exchange.cut && !sending.begun
        exchange.done(dropped || isHijacked(reply) ? 'nobody' : 'framework')
      },
      () => exchange.done(isHijacked(reply) ? 'nobody' : 'framework'),
    )
    return result
  }
  Object.defineProperty(locked, 'name', { value: handler.name, configurable: true })
  return locked
}

/**
 * Has a handler that returns or awaits its reply go on when the response has ended or its client has
 * left, as Fastify does if that has happened already, and not when the client has read it all: a
 * slow reader would keep the lock.
 */
function settleAtEnd(reply: FastifyReply, exchange: Exchange): void {
  const { then } = reply
  // biome-ignore lint/suspicious/noThenProperty: a reply is a thenable by Fastify's design
  reply.then = function (fulfilled, rejected) {
    if (this.sent) {
      fulfilled()
      return
    }
    let told = false
    const tell = () => {
      if (told) return
      told = true
      fulfilled()
    }
    exchange.whenOver(tell)
    then.call(this, tell, rejected)
  }
}

/**
 * Sees that an answer is being sent: hooks may work on it although its client has left. Of a stream
 * it sees when that is over too, since Fastify does not end the response of a stream that broke.
 */
function watchSending(reply: FastifyReply, exchange: Exchange): { begun: boolean } {
  const sending = { begun: false }
  const { send } = reply
  reply.send = function (payload) {
    sending.begun = true
    if (payload instanceof Readable) {
      const forget = finished(payload, () => {
        forget()
        exchange.drop()
      })
    }
    return send.call(this, payload)
  }
  return sending
}

function isHijacked(reply: FastifyReply): boolean {
  return reply.sent && !reply.raw.writableEnded
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === 'function'
}
