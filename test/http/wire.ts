import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { atEnd } from '../support/cleanup.js'
import { PATIENCE, within } from './harness.js'

/** A response as it came over the wire. */
export interface WireAnswer {
  readonly status: number
  readonly headers: ReadonlyMap<string, string>
  readonly body: string
}

/** A client that says byte for byte what goes over its one connection, and reads in order. */
export class WireClient {
  readonly #socket: Socket
  #text = ''
  #closed = false

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.setEncoding('latin1')
    socket.on('data', (data) => {
      this.#text += data
    })
    socket.on('error', () => {})
    socket.on('close', () => {
      this.#closed = true
    })
    atEnd(() => socket.destroy())
  }

  static async connect(port: number): Promise<WireClient> {
    const socket = connect(port, '127.0.0.1')
    await once(socket, 'connect')
    return new WireClient(socket)
  }

  write(text: string): void {
    this.#socket.write(text)
  }

  /** Sends requests of a user, all in one piece. */
  request(user: string, ...lines: string[]): void {
    this.write(
      (lines.length === 0 ? ['POST /'] : lines).map((line) => request(user, line)).join(''),
    )
  }

  /** Leaves without a word more; `reset` as a process that is killed does. */
  leave(reset = false): void {
    if (reset) this.#socket.resetAndDestroy()
    else this.#socket.destroy()
  }

  /** Does not read any more. */
  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    this.#socket.resume()
  }

  get closed(): boolean {
    return this.#closed
  }

  /** All that has come and was not taken yet. */
  get pending(): string {
    return this.#text
  }

  /** The next response; `bodyless` for one to a HEAD request. */
  async answer(bodyless = false, patience = PATIENCE): Promise<WireAnswer> {
    for (;;) {
      const parsed = parse(this.#text, bodyless, this.#closed)
      if (parsed) {
        this.#text = this.#text.slice(parsed.length)
        return parsed.answer
      }
      if (this.#closed) throw new Error(`The connection was closed after: ${this.#text}`)
      const more = new Promise<void>((resolve) => {
        const done = () => {
          this.#socket.off('data', done)
          this.#socket.off('close', done)
          resolve()
        }
        this.#socket.on('data', done)
        this.#socket.on('close', done)
      })
      await within(more, 'an answer over the wire', patience)
    }
  }

  /** The server has closed the connection. */
  async end(): Promise<void> {
    if (!this.#closed) await within(once(this.#socket, 'close'), 'the end of the connection')
  }
}

/** `line` is a method and a path. */
export function request(user: string, line: string, body = ''): string {
  const length = body === '' && !line.startsWith('P') ? '' : `Content-Length: ${body.length}\r\n`
  const type = body === '' ? '' : 'Content-Type: text/plain\r\n'
  return `${line} HTTP/1.1\r\nHost: localhost\r\nX-User: ${user}\r\n${type}${length}\r\n${body}`
}

function parse(
  text: string,
  bodyless: boolean,
  closed: boolean,
): { answer: WireAnswer; length: number } | undefined {
  const head = text.indexOf('\r\n\r\n')
  if (head < 0) return undefined
  const [line = '', ...lines] = text.slice(0, head).split('\r\n')
  const status = Number(line.split(' ')[1])
  const headers = new Map(
    lines.map((header): [string, string] => {
      const colon = header.indexOf(':')
      return [header.slice(0, colon).toLowerCase(), header.slice(colon + 1).trim()]
    }),
  )
  const rest = text.slice(head + 4)
  const found = (body: string, length: number) => ({
    answer: { status, headers, body },
    length: head + 4 + length,
  })
  if (bodyless || status === 204 || status === 304) return found('', 0)
  if (headers.get('transfer-encoding') === 'chunked') return parseChunks(rest, found)
  const length = headers.get('content-length')
  if (length !== undefined) {
    return rest.length < Number(length)
      ? undefined
      : found(rest.slice(0, Number(length)), Number(length))
  }
  return closed ? found(rest, rest.length) : undefined
}

function parseChunks<T>(rest: string, found: (body: string, length: number) => T): T | undefined {
  let at = 0
  let body = ''
  for (;;) {
    const end = rest.indexOf('\r\n', at)
    if (end < 0) return undefined
    const size = Number.parseInt(rest.slice(at, end), 16)
    if (size === 0) {
      // Trailers, if any, then an empty line.
      const last = rest.indexOf('\r\n\r\n', at)
      return last < 0 ? undefined : found(body + rest.slice(end, last), last + 4)
    }
    if (rest.length < end + 2 + size + 2) return undefined
    body += rest.slice(end + 2, end + 2 + size)
    at = end + 2 + size + 2
  }
}
