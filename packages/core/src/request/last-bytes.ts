import type { ServerResponse } from 'node:http'
import type { End, HttpResponse } from './exchange.js'
import { report } from './report.js'

/**
 * Holds back the end of an answer until a lock has been released, so that the client can't send its
 * next request before.
 *
 * What has been answered stays answered: the headers are fixed without sending a byte, the response
 * says that it is ended, and whoever writes or ends it once more meets what he would have met
 * without us.
 */
export class LastBytes {
  /** The arguments of the `end` that waits. */
  #args: unknown[] | undefined
  #sent = false
  #streamed = false
  #timer: NodeJS.Timeout | undefined

  /** @param end Node's own; somebody else's may do more than send bytes */
  constructor(
    readonly res: HttpResponse,
    readonly end: End,
  ) {
    const write = res.write as End
    const guard = () => {
      this.#streamed = true
      this.flush()
    }
    res.write = function (this: HttpResponse, ...args: unknown[]) {
      guard()
      return write.apply(this, args)
    } as typeof res.write
  }

  /** Does an end wait? */
  get held(): boolean {
    return this.#args !== undefined
  }

  /** Whether it takes care of this call of `end`. */
  takes(args: unknown[], over: boolean): boolean {
    if (this.#sent) return false
    const [chunk, encoding] = args
    const size = sizeOf(chunk, encoding)
    if (this.#args) {
      if (args.length === 0) return true
      this.flush()
      return false
    }
    // What was streamed has reached the client, but for what comes with the end.
    if (over || size === undefined || (this.#streamed && size === 0)) return false
    fixHeaders(this.res, size)
    this.#args = args
    Object.defineProperty(this.res, 'writableEnded', { configurable: true, value: true })
    return true
  }

  flush(): void {
    const args = this.#args
    if (!args) return
    this.#args = undefined
    this.#sent = true
    clearTimeout(this.#timer)
    Reflect.deleteProperty(this.res, 'writableEnded')
    try {
      this.end.apply(this.res, args)
    } catch (error) {
      // Nobody is there any more to throw it to.
      report('A response could not be ended', error)
      this.res.destroy()
    }
  }

  /** Waits `ms` longer at most. */
  flushIn(ms: number): void {
    this.#timer ??= setTimeout(() => this.flush(), ms)
  }
}

/** In bytes; `undefined` for what can't be sent, which Node is to refuse. */
function sizeOf(chunk: unknown, encoding: unknown): number | undefined {
  if (chunk === undefined || chunk === null || typeof chunk === 'function') return 0
  if (typeof chunk === 'string') {
    return Buffer.byteLength(
      chunk,
      typeof encoding === 'string' ? (encoding as BufferEncoding) : 'utf8',
    )
  }
  return chunk instanceof Uint8Array ? chunk.byteLength : undefined
}

/** Sets what `end` would set, and lets nobody change it any more. */
function fixHeaders(res: HttpResponse, size: number): void {
  if (res.headersSent) return
  const { statusCode } = res
  const bodyless = res.req.method === 'HEAD' || statusCode === 204 || statusCode === 304
  if (!('assignSocket' in res)) {
    // On HTTP/2 the headers are all of an answer without a body, and would not wait.
    if (!bodyless && statusCode !== 205) res.writeHead(statusCode)
    return
  }
  const sized = !bodyless && res.useChunkedEncodingByDefault && !framed(res)
  if (sized) res.setHeader('Content-Length', size)
  try {
    res.writeHead(statusCode)
  } catch (error) {
    if (sized) res.removeHeader('Content-Length')
    throw error
  }
}

function framed(res: ServerResponse): boolean {
  return (
    res.hasHeader('content-length') ||
    res.hasHeader('transfer-encoding') ||
    res.hasHeader('trailer')
  )
}
