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
    // A large one is not looked through again with each piece of it that comes.
    let least = 0
    for (;;) {
      if (this.#text.length >= least || this.#closed) {
        const parsed = parse(this.#text, bodyless, this.#closed)
        if (typeof parsed === 'object') {
          this.#text = this.#text.slice(parsed.length)
          return parsed.answer
        }
        least = parsed
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

interface Parsed {
  readonly answer: WireAnswer
  /** How much of the text it is. */
  readonly length: number
}

/** The first response, or how long the text must be at least before that is all there. */
function parse(text: string, bodyless: boolean, closed: boolean): Parsed | number {
  const head = text.indexOf('\r\n\r\n')
  if (head < 0) return text.length + 1
  const [line = '', ...lines] = text.slice(0, head).split('\r\n')
  const status = Number(line.split(' ')[1])
  const headers = new Map(
    lines.map((header): [string, string] => {
      const colon = header.indexOf(':')
      return [header.slice(0, colon).toLowerCase(), header.slice(colon + 1).trim()]
    }),
  )
  const rest = text.slice(head + 4)
  const found = (body: string, length: number): Parsed => ({
    answer: { status, headers, body },
    length: head + 4 + length,
  })
  const lacking = (least: number): number => head + 4 + least
  if (bodyless || status === 204 || status === 304) return found('', 0)
  if (headers.get('transfer-encoding') === 'chunked') return parseChunks(rest, found, lacking)
  const length = headers.get('content-length')
  if (length !== undefined) {
    return rest.length < Number(length)
      ? lacking(Number(length))
      : found(rest.slice(0, Number(length)), Number(length))
  }
  return closed ? found(rest, rest.length) : text.length + 1
}

function parseChunks(
  rest: string,
  found: (body: string, length: number) => Parsed,
  lacking: (least: number) => number,
): Parsed | number {
  let at = 0
  let body = ''
  for (;;) {
    const end = rest.indexOf('\r\n', at)
    if (end < 0) return lacking(rest.length + 1)
    const size = Number.parseInt(rest.slice(at, end), 16)
    if (size === 0) {
      // Trailers, if any, then an empty line.
      const last = rest.indexOf('\r\n\r\n', at)
      return last < 0 ? lacking(rest.length + 1) : found(body + rest.slice(end, last), last + 4)
    }
    const whole = end + 2 + size + 2
    if (rest.length < whole) return lacking(whole)
    body += rest.slice(end + 2, end + 2 + size)
    at = end + 2 + size + 2
  }
}
