import { finished, Readable } from 'node:stream'
import { type Ending, Exchange, isThenable } from '@redismutex/core/request'
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'

type Handler = RouteOptions['handler']

/**
 * Sees when a handler is done: when its promise has settled, or, of one that gives none, when its
 * reply has ended.
 */
export function withLock(handler: Handler): Handler {
  const locked = function (this: FastifyInstance, request: FastifyRequest, reply: FastifyReply) {
    const exchange = Exchange.of(reply.raw)
    if (!exchange?.holds.any) return handler.call(this, request, reply)
    const { holds } = exchange
    const awaiting = settleAtEnd(reply, exchange)
    const sending = watchSending(reply, holds)
    if (request.raw.httpVersionMajor === 2) writeThrough(reply)
    holds.begin()
    let result: ReturnType<Handler>
    try {
      result = holds.run(() => handler.call(this, request, reply))
    } catch (error) {
      holds.done('framework')
      throw error
    }
    if (!isThenable(result)) {
      holds.done('unknown')
      return result
    }
    // A query builder runs its query each time that its `then` is called: once is enough.
    const once = Promise.resolve<unknown>(result)
    once.then(
      (payload) => holds.done(leftBy(payload)),
      () => holds.done(isHijacked(reply) ? 'nobody' : 'framework'),
    )
    return once

    /** Who is left to end the response. */
    function leftBy(payload: unknown): Ending {
      if (isHijacked(reply)) return 'nobody'
      // It is read to its end, or given up, whether its client has left or not.
      if (sending.streams || payload instanceof Readable) return 'unknown'
      // Fastify sends no empty answer to a client that has left; what is being sent comes to its end.
      if (payload !== undefined || !exchange?.cut || sending.begun) return 'framework'
      // Who awaits or gives the reply is told that the client has left, and may work on by callbacks.
      return awaiting.begun ? 'unknown' : 'nobody'
    }
  }
  Object.defineProperty(locked, 'name', { value: handler.name, configurable: true })
  return locked
}

/**
 * Has a handler that returns or awaits its reply go on when the response has ended or its client has
 * left, as Fastify does if that has happened already, and not when the client has read it all: a
 * slow reader would keep the lock.
 */
function settleAtEnd(reply: FastifyReply, exchange: Exchange): { readonly begun: boolean } {
  const { then } = reply
  const awaiting = { begun: false }
  // biome-ignore lint/suspicious/noThenProperty: a reply is a thenable by Fastify's design
  reply.then = function (fulfilled, rejected) {
    if (this.sent) {
      fulfilled()
      return
    }
    awaiting.begun = true
    let told = false
    const tell = () => {
      if (told) return
      told = true
      fulfilled()
    }
    exchange.whenOver(tell)
    then.call(this, tell, rejected)
  }
  return awaiting
}

/**
 * Sees that an answer is being sent: hooks may work on it although its client has left. Of a stream
 * it sees when that is over too, since Fastify does not end the response of a stream that broke, or
 * whose client has left.
 */
function watchSending(
  reply: FastifyReply,
  holds: Exchange['holds'],
): { readonly begun: boolean; readonly streams: boolean } {
  const sending = { begun: false, streams: false }
  const { send } = reply
  reply.send = function (payload) {
    sending.begun = true
    sending.streams = payload instanceof Readable
    if (typeof payload === 'object' && payload !== null) whenRead(payload, () => holds.drop())
    return send.call(this, payload)
  }
  return sending
}

/** Calls back when a stream, or the body of a `Response`, has ended, broken or been given up. */
function whenRead(payload: object, callback: () => void): void {
  if (payload instanceof Readable) {
    const forget = finished(payload, () => {
      forget()
      callback()
    })
    return
  }
  const stream = payload instanceof Response ? payload.body : payload
  if (!(stream instanceof ReadableStream)) return
  const { getReader } = stream
  stream.getReader = function (this: ReadableStream, ...args: []) {
    const reader = getReader.apply(this, args)
    reader.closed.then(callback, callback)
    return reader
  } as typeof getReader
}

/**
 * Lets Fastify give a large answer to HTTP/2 at once, as to HTTP/1, where it waits for its reader
 * every 64 kB: it is in memory as a whole already, and its lock would be kept by a slow reader.
 */
function writeThrough(reply: FastifyReply): void {
  const res = reply.raw
  const { write } = res
  let written = 0
  res.write = function (this: typeof res, ...args: Parameters<typeof write>) {
    const more = write.apply(this, args)
    const [chunk]: unknown[] = args
    if (!(chunk instanceof Uint8Array)) return more
    const rest = Number(res.getHeader('content-length')) - written
    written += chunk.byteLength
    return more || chunk.buffer.byteLength - chunk.byteOffset >= rest
  } as typeof write
}

function isHijacked(reply: FastifyReply): boolean {
  return reply.sent && !reply.raw.writableEnded
}
