import type { Http2ServerResponse, ServerHttp2Stream } from 'node:http2'
import type { Method } from './http.js'
import { type LastBytes, override, sizeOf } from './last-bytes.js'
import { report } from './report.js'

/**
 * On HTTP/2 the call of `end` itself waits: the headers may be all of an answer, and can't be kept
 * back once they are given to the stream.
 *
 * What has been answered stays answered: the headers are fixed, the response says that it is ended,
 * and whoever writes or ends it once more meets what he would have met without us.
 */
export class HeldEnd implements LastBytes {
  /** The arguments of the `end` that waits. */
  #args: readonly unknown[] | undefined
  #restore: (() => void) | undefined
  #status = 200
  #sent = false
  #timer: NodeJS.Timeout | undefined

  /** @param end Node's own; somebody else's may do more than send bytes */
  constructor(
    readonly res: Http2ServerResponse,
    readonly end: Method,
  ) {
    const held = this
    const write = res.write as Method
    res.write = function (this: Http2ServerResponse, ...args: unknown[]) {
      if (!held.#args) return write.apply(this, args)
      // It would close the stream of what is still to be sent, and is to find it closed instead.
      res.stream.once('close', () => write.apply(this, args))
      return false
    } as typeof res.write
  }

  takes(args: readonly unknown[], over: boolean): boolean {
    if (this.#sent) return false
    if (this.#args) {
      if (args.length === 0) return true
      this.flush()
      return false
    }
    const [chunk, encoding] = args
    if (over || sizeOf(chunk, encoding) === undefined) return false
    const { res } = this
    // The headers are all of an answer without a body, and would not wait.
    const bodyless = res.req.method === 'HEAD' || [204, 205, 304].includes(res.statusCode)
    if (!res.headersSent && !bodyless) res.writeHead(res.statusCode)
    // They are fixed all the same.
    if (!res.headersSent) {
      Object.defineProperty(res.stream, 'headersSent', { configurable: true, value: true })
    }
    this.#args = args
    this.#status = res.statusCode
    Object.defineProperty(res, 'writableEnded', { configurable: true, value: true })
    this.#sendBeforeClose(res.stream)
    return true
  }

  flush(): void {
    const args = this.#args
    if (!args) return
    this.#args = undefined
    this.#sent = true
    clearTimeout(this.#timer)
    this.#restore?.()
    Reflect.deleteProperty(this.res, 'writableEnded')
    Reflect.deleteProperty(this.res.stream, 'headersSent')
    this.res.statusCode = this.#status
    try {
      this.end.apply(this.res, args as unknown[])
    } catch (error) {
      // Nobody is there any more to throw it to.
      report('A response could not be ended', error)
      this.res.destroy()
    }
  }

  flushIn(ms: number): void {
    if (this.#args) this.#timer ??= setTimeout(() => this.flush(), ms)
  }

  stay(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  /** Whoever closes the stream after an answer means the answer to have been sent. */
  #sendBeforeClose(stream: ServerHttp2Stream): void {
    const send = () => {
      // Node closes it as well, when nobody is there any more to send to.
      if (!stream.closed && stream.session?.destroyed === false) this.flush()
    }
    const { close, destroy } = stream
    const restores = [
      override(stream, 'close', function (this: ServerHttp2Stream, ...args) {
        send()
        return close.apply(this, args)
      }),
      override(stream, 'destroy', function (this: ServerHttp2Stream, error?: Error) {
        send()
        return destroy.call(this, error)
      }),
    ]
    this.#restore = () => {
      for (const restore of restores) restore()
    }
  }
}
