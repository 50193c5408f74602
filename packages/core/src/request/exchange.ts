import type { Socket } from 'node:net'
import { Readable } from 'node:stream'
import type { Abortable, Caller } from '../aborts.js'
import { ClientGoneError } from '../errors.js'
import { Holds } from './holds.js'
import { type HttpRequest, type HttpResponse, isHttp2, type Method } from './http.js'
import type { LastBytes } from './last-bytes.js'
import { unwatchSocket, watchSocket } from './sockets.js'

const EXCHANGE: unique symbol = Symbol('redismutex.exchange')

/** On the response itself: a WeakMap would cost more for each request than all the rest. */
type Watched = HttpResponse & { [EXCHANGE]?: Exchange }

/** How often a response is looked at whose end somebody puts off, when no event may tell of it. */
const LOOK = 10

/**
 * One request and its response, watched from the first middleware on: has the server ended the
 * response, has the client left before? What the request holds (`holds`) is told of both.
 *
 * The end is `res.end()` having taken effect, or `res.destroy()` by the server itself. `finish` and
 * `close` would not do: after an abort `finish` never comes, `close` comes while the handler still
 * works, and a response that is queued behind another one on a pipelined connection gets neither.
 */
export class Exchange implements Caller {
  /** Has the server ended the response? */
  ended = false
  /** Has the client left before that? */
  gone = false
  readonly holds: Holds
  /** What keeps the end of the answer back until its lock is released. */
  lastBytes: LastBytes | undefined
  /** Was an end called that somebody puts off who has wrapped it since? */
  #putOff = false
  /** Was ours called? It may not have taken effect yet. */
  #called = false
  #whenOver: (() => void)[] | undefined
  /** Waits for a lock on behalf of the request. */
  #waiting: Abortable | undefined
  #look: NodeJS.Timeout | undefined
  /** Of HTTP/1, while it is watched; a stream of HTTP/2 tells by itself. */
  #socket: Socket | undefined
  readonly #wrapper: Method
  /** Of HTTP/1. A body that undici has read has no `req.socket` any more. */
  readonly #connection: Socket | undefined

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
    this.holds = new Holds(this)
    this.#connection = isHttp2(res) ? undefined : req.socket
    this.wrapped = Object.hasOwn(res, 'end')
    this.innerEnd = res.end as Method
    this.#wrapper = endOf(this)
    res.end = this.#wrapper as typeof res.end
    res.destroy = destroyOf(this, res.destroy as Method) as typeof res.destroy
    this.ended = res.writableEnded
    if (this.ended) return
    res.once('finish', () => {
      this.#forget()
      // For those who have kept an `end` from before us, and call that.
      this.#judge()
    })
    const socket = this.#connection
    if (isHttp2(res) ? !res.stream || res.stream.destroyed : socket?.destroyed) {
      this.gone = true
    } else if (typeof socket?.once === 'function') {
      this.#socket = socket
      watchSocket(socket, this)
    } else {
      res.once('close', () => this.socketClosed())
      if (isHttp2(res)) res.stream.once('close', () => this.#streamClosed())
    }
  }

  /** `end` as it was before us. */
  readonly innerEnd: Method
  /** Did somebody wrap it before us, who may put off the real end? */
  readonly wrapped: boolean

  /** Is there nobody to work for any more? */
  get over(): boolean {
    return this.ended || this.gone
  }

  /** Was an end called that has not taken effect yet? */
  get ending(): boolean {
    return !this.ended && (this.#putOff || this.#called)
  }

  /** Is the connection closed, though its event may not have come yet? */
  get cut(): boolean {
    const { res } = this
    return (
      this.gone ||
      (isHttp2(res) ? !res.stream || res.stream.destroyed : this.#connection?.destroyed === true)
    )
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

  /** Sees from now on an end that somebody puts off who has wrapped it since. */
  noticeEnd(): void {
    const outer = this.res.end as Method
    if (outer === this.#wrapper || this.#putOff) return
    const exchange = this
    this.res.end = function end(this: HttpResponse, ...args: unknown[]) {
      exchange.#putOff = true
      try {
        return exchange.#puttingOff(outer.apply(this, args))
      } catch (error) {
        exchange.#putOff = false
        throw error
      }
    } as typeof this.res.end
  }

  /** The wrapped `end`. */
  end(args: unknown[]): unknown {
    const { res, lastBytes } = this
    if (lastBytes?.takes(args, this.over || !this.holds.any)) {
      if (!this.ended) this.#serverEnded()
      return res
    }
    let result: unknown
    try {
      result = this.innerEnd.apply(
        res,
        this.wrapped && isHttp2(res) ? this.#calledBack(args) : args,
      )
    } catch (error) {
      lastBytes?.flush()
      throw error
    }
    if (!this.ended) {
      this.#called = true
      this.#puttingOff(result)
      this.#judge()
    }
    return result
  }

  /** The wrapped `destroy`: the server gives the response up. */
  destroyed(): void {
    if (!this.ended && !this.ending) this.#serverEnded()
  }

  socketClosed(): void {
    if (this.#queued) tellClose(this.res)
    this.#forget()
    if (this.over) return
    this.gone = true
    this.#waiting?.aborted(overWhileWaiting())
    this.holds.clientGone()
    this.#tell()
    this.holds.settle()
    if (this.#called) this.#judge()
  }

  /** Of HEAD Node tells the response nothing, as long as nobody has ended that. */
  #streamClosed(): void {
    if (!this.over) tellClose(this.res)
  }

  /**
   * Who compresses gives his stream. When the client has left he either waits for it to read on, or
   * closes the stream, and never ends the response.
   */
  #puttingOff(result: unknown): unknown {
    if (result instanceof Readable) {
      this.whenOver(() => result.on('pause', () => result.resume()).resume())
      result.once('close', () => {
        if (result.readableEnded) return
        this.#putOff = false
        this.#called = false
        this.holds.drop()
      })
    }
    return result
  }

  /** `end` was called: has it taken effect? */
  #judge(): void {
    clearTimeout(this.#look)
    if (this.ended) return
    const { res } = this
    // HTTP/2 ignores the end of a stream that is closed; a plain one has nothing to wait for.
    if (res.writableEnded || (this.#called && this.gone && !this.wrapped)) {
      this.#serverEnded()
      return
    }
    if (!this.#called || (this.gone && !this.holds.live)) return
    // Somebody saves or compresses first. Queued or aborted responses tell nothing of their end.
    if (this.#look === undefined) res.once('prefinish', () => this.#judge())
    this.#look = setTimeout(() => this.#judge(), LOOK)
    this.#look.unref()
  }

  /** The late end of a stream that is closed shows by nothing but its callback. */
  #calledBack(args: unknown[]): unknown[] {
    const own = args.filter((arg) => typeof arg !== 'function').slice(0, 2)
    const callback = args.find((arg) => typeof arg === 'function') as Method | undefined
    const told = (...results: unknown[]) => {
      if (!this.ended) this.#serverEnded()
      callback?.apply(this.res, results)
    }
    return [...own, ...Array(2 - own.length).fill(undefined), told]
  }

  #serverEnded(): void {
    this.ended = true
    if (!this.#queued) this.#forget()
    this.#waiting?.aborted(overWhileWaiting())
    this.#tell()
    this.holds.settle()
  }

  #tell(): void {
    const callbacks = this.#whenOver
    if (!callbacks) return
    this.#whenOver = undefined
    for (const callback of callbacks) callback()
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

function endOf(exchange: Exchange): Method {
  return function end(...args) {
    return exchange.end(args)
  }
}

function destroyOf(exchange: Exchange, inner: Method): Method {
  return function destroy(this: unknown, ...args) {
    // From Node.js 24 on, it destroys queued responses itself when their connection has closed.
    const byNode = exchange.cut && !exchange.gone
    // Whoever destroys it after its end means it to have been sent.
    if (!exchange.cut) exchange.lastBytes?.flush()
    const result = inner.apply(this, args)
    if (!byNode) exchange.destroyed()
    return result
  }
}

/**
 * A queued response whose connection is gone tells nobody before Node.js 24, nor does one to HEAD
 * whose stream is: handlers that wait for its end, as `pipeline` does, would wait for ever, and keep
 * their locks.
 */
function tellClose(res: HttpResponse): void {
  const untold = setImmediate(() => res.emit('close'))
  res.once('close', () => clearImmediate(untold))
}

function overWhileWaiting(): ClientGoneError {
  return new ClientGoneError('the request was over before the lock came')
}
