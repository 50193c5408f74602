import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Http2ServerRequest, Http2ServerResponse } from 'node:http2'
import type { Socket } from 'node:net'
import type { Abortable, Caller } from '../aborts.js'
import { ClientGoneError } from '../errors.js'
import type { Store } from '../stores/store.js'
import type { Hold } from './hold.js'
import { LastBytes } from './last-bytes.js'
import { unwatchSocket, watchSocket } from './sockets.js'

export type HttpRequest = IncomingMessage | Http2ServerRequest
export type HttpResponse = ServerResponse | Http2ServerResponse

/** `end` as anybody may call or wrap it. */
export type End = (this: unknown, ...args: unknown[]) => unknown

const EXCHANGE: unique symbol = Symbol('redismutex.exchange')

/** On the response itself: a WeakMap would cost more for each request than all the rest. */
type Watched = HttpResponse & { [EXCHANGE]?: Exchange }

/**
 * Who is left to end a response when a handler is done: `'nobody'`, the `'framework'` with what the
 * handler gave it, or somebody `'unknown'`: callbacks, or the middleware that comes next.
 */
export type Ending = 'nobody' | 'framework' | 'unknown'

/** How often a response is looked at whose end somebody puts off, when no event may tell of it. */
const LOOK = 10

/**
 * How long an answer that waits for its lock's release waits for the handler: one that answers
 * early and works on is not to be waited for.
 */
const HANDLER_GRACE = 50

/**
 * One request and its response, watched from the first middleware on: has the server ended the
 * response, has the client left before, is the handler still at work? The locks that the request
 * holds go back when the server and the handler are done.
 *
 * The end is `res.end()` having taken effect. `finish` and `close` would not do: after an abort
 * `finish` never comes, `close` comes while the handler still works, and a response that is queued
 * behind another one on a pipelined connection gets neither.
 */
export class Exchange implements Caller {
  /** Has the server ended the response? */
  ended = false
  /** Has the client left before that? */
  gone = false
  /** The handlers at work of which it will be known when they are done. */
  #working = 0
  /** Who is left to end the response. */
  #left: Ending = 'unknown'
  /** Was an end called that somebody puts off who has wrapped it since? */
  #ending = false
  /** Was ours called? It may not have taken effect yet. */
  #called = false
  #holds: Hold[] = []
  /** Has what was to be sent ended, or broken? */
  #dropped = false
  #whenOver: (() => void)[] | undefined
  #lastBytes: LastBytes | undefined
  /** Waits for a lock on behalf of the request. */
  #waiting: Abortable | undefined
  #look: NodeJS.Timeout | undefined
  /** Of HTTP/1; a stream of HTTP/2 tells by itself. */
  #socket: Socket | undefined
  readonly #wrapper: End
  readonly #inner: End
  /** Did somebody wrap `end` before, who may put off the real end? */
  readonly #wrapped: boolean

  /** The exchange of a response, if it is watched. */
  static of(res: HttpResponse): Exchange | undefined {
    return (res as Watched)[EXCHANGE]
  }

  /** Begins to watch, or gives what does so already. Before the first await: an event may be missed else. */
  static watch(req: HttpRequest, res: HttpResponse): Exchange {
    return Exchange.of(res) ?? new Exchange(req, res)
  }

  private constructor(
    readonly req: HttpRequest,
    readonly res: HttpResponse,
  ) {
    ;(res as Watched)[EXCHANGE] = this
    this.#wrapped = Object.hasOwn(res, 'end')
    this.#inner = res.end as End
    this.#wrapper = wrapper(this)
    res.end = this.#wrapper as typeof res.end
    this.ended = res.writableEnded
    if (this.ended) return
    res.once('finish', () => {
      this.#forget()
      // For those who have kept an `end` from before us, and call that.
      this.#judge()
    })
    const socket: Socket | undefined = isHttp2(res) ? undefined : req.socket
    if (isHttp2(res) ? !res.stream || res.stream.destroyed : socket?.destroyed) {
      this.gone = true
    } else if (typeof socket?.once === 'function') {
      this.#socket = socket
      watchSocket(socket, this)
    } else {
      res.once('close', () => this.socketClosed())
    }
  }

  /** Is there nobody to work for any more? */
  get over(): boolean {
    return this.ended || this.gone
  }

  /** @throws why waiting for a lock has become useless, if so */
  throwIfAborted(): void {
    if (this.over) throw overWhileWaiting()
  }

  add(waiting: Abortable): void {
    this.#waiting = waiting
  }

  delete(): void {
    this.#waiting = undefined
  }

  /** Of these keys, those that the request does not hold yet. */
  lacking(store: Store, keys: string | readonly string[]): string | readonly string[] | null {
    if (this.#holds.length === 0) return keys
    const wanted = typeof keys === 'string' ? [keys] : keys
    const lacking = wanted.filter((key) => {
      const name = store.nameOf(key)
      return !this.#holds.some((hold) => hold.has(store, name))
    })
    return lacking.length === 0 ? null : lacking
  }

  /** The request holds a lock from now on. */
  hold(hold: Hold): void {
    this.#holds.push(hold)
    if (hold.terms.awaitRelease && !this.#wrapped)
      this.#lastBytes ??= new LastBytes(this.res, this.#inner)
  }

  /** A handler begins that will tell when it is done. */
  begin(): void {
    this.#working++
    for (const hold of this.#holds) hold.unlimit()
    this.#noticeEnd()
  }

  /** It is done: who is left to end the response, if it has not? */
  done(left: Ending): void {
    this.#working--
    this.#left = left
    this.#settle()
  }

  /** What was to be sent is over: if the client has left, nobody will end the response any more. */
  drop(): void {
    this.#dropped = true
    this.#settle()
  }

  /** Is the connection closed, though its event may not have come yet? */
  get cut(): boolean {
    const { req, res } = this
    return this.gone || (isHttp2(res) ? !res.stream || res.stream.destroyed : req.socket.destroyed)
  }

  /** Calls back when the response has ended or the client has left. */
  whenOver(callback: () => void): void {
    if (this.over) {
      callback()
      return
    }
    this.#whenOver ??= []
    this.#whenOver.push(callback)
  }

  /** Does it hold a lock? */
  get holding(): boolean {
    return this.#holds.length > 0
  }

  /** Sends what waits for a release, at once. */
  flush(): void {
    this.#lastBytes?.flush()
  }

  /** The wrapped `end`. */
  end(args: unknown[]): unknown {
    const { res } = this
    if (this.#lastBytes?.takes(args, this.over)) {
      if (!this.ended) this.#serverEnded()
      return res
    }
    const result = this.#inner.apply(res, args)
    if (!this.ended) {
      this.#called = true
      this.#judge()
    }
    return result
  }

  socketClosed(): void {
    if (this.#queued) tellClose(this.res)
    this.#forget()
    if (this.over) return
    this.gone = true
    this.#waiting?.aborted(overWhileWaiting())
    for (const hold of this.#holds) hold.clientGone()
    this.#tell()
    this.#settle()
    if (this.#called) this.#judge()
  }

  /** `end` was called: has it taken effect? */
  #judge(): void {
    clearTimeout(this.#look)
    if (this.ended) return
    const { res } = this
    // HTTP/2 ignores the end of a stream that is closed; a plain one has nothing to wait for.
    if (res.writableEnded || (this.#called && this.gone && !this.#wrapped)) {
      this.#serverEnded()
      return
    }
    if (this.gone && !this.#holds.some((hold) => hold.lives)) return
    if (!this.#called) return
    // Somebody saves or compresses first. Queued or aborted responses tell nothing of their end.
    if (this.#look === undefined) res.once('prefinish', () => this.#judge())
    this.#look = setTimeout(() => this.#judge(), LOOK)
    this.#look.unref()
  }

  #serverEnded(): void {
    this.ended = true
    if (!this.#queued) this.#forget()
    this.#waiting?.aborted(overWhileWaiting())
    this.#tell()
    this.#settle()
  }

  #tell(): void {
    const callbacks = this.#whenOver ?? []
    this.#whenOver = undefined
    for (const callback of callbacks) callback()
  }

  /** Releases if the request is over, or sees to it that it will be. */
  #settle(): void {
    if (!this.over || this.#holds.length === 0) return
    if (this.#working > 0) {
      if (this.#lastBytes?.held) this.#lastBytes.flushIn(HANDLER_GRACE)
      return
    }
    if (!this.ended && !this.#abandoned) {
      for (const hold of this.#holds) hold.limit()
      return
    }
    const holds = this.#holds
    this.#holds = []
    // The one taken last is given back first.
    const releases = holds.reverse().map((hold) => hold.release())
    if (this.#lastBytes?.held) void Promise.all(releases).then(() => this.flush())
  }

  /** The client has left, the handler is done: will nobody end the response any more? */
  get #abandoned(): boolean {
    if (this.#ending || this.#called) return false
    if (this.#dropped) return true
    if (this.#left === 'unknown') return false
    return this.#left === 'nobody' || this.res.headersSent
  }

  /** Sees an end that somebody puts off who has wrapped it since. */
  #noticeEnd(): void {
    const outer = this.res.end as End
    if (outer === this.#wrapper || this.#ending) return
    const exchange = this
    this.res.end = function end(this: HttpResponse, ...args: unknown[]) {
      exchange.#ending = true
      return outer.apply(this, args)
    } as typeof this.res.end
  }

  /** Does its response wait for the one before it on its connection? */
  get #queued(): boolean {
    const { res } = this
    return this.#socket !== undefined && res.socket === null && !res.writableFinished
  }

  #forget(): void {
    if (this.#socket) unwatchSocket(this.#socket, this)
    this.#socket = undefined
  }
}

function wrapper(exchange: Exchange): End {
  return function end(...args) {
    return exchange.end(args)
  }
}

/**
 * A queued response whose connection is gone tells nobody before Node.js 24: handlers that wait for
 * its end, as `pipeline` does, would wait for ever, and keep their locks.
 */
function tellClose(res: HttpResponse): void {
  const untold = setImmediate(() => res.emit('close'))
  res.once('close', () => clearImmediate(untold))
}

function isHttp2(res: HttpResponse): res is Http2ServerResponse {
  return !('assignSocket' in res)
}

function overWhileWaiting(): ClientGoneError {
  return new ClientGoneError('the request was over before the lock came')
}
