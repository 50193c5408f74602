import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http'
import type { MutexError, MutexErrorCode } from '../errors.js'

/** A mutex error that says how to answer it: frameworks read these names. */
export type RefusalError = MutexError & {
  statusCode: number
  headers: Readonly<Record<string, string>>
}

/** What the client is told: nothing of the key, its holder or the servers behind. */
const details: Partial<Record<MutexErrorCode, string>> = {
  ERR_MUTEX_LOCKED: 'Another request that must not run at the same time is in progress.',
  ERR_MUTEX_BLOCK_TIME_EXCEEDED:
    'Other requests that must not run at the same time took too long to wait for.',
  ERR_MUTEX_QUEUE_FULL: 'Too many requests that must not run at the same time are waiting already.',
  ERR_MUTEX_STORE: 'It could not be made sure that this request runs alone.',
  ERR_MUTEX_CLOSED: 'The server is shutting down.',
}

/** Somebody else has it; anything else is the server's own trouble. */
const busy: ReadonlySet<MutexErrorCode> = new Set([
  'ERR_MUTEX_LOCKED',
  'ERR_MUTEX_BLOCK_TIME_EXCEEDED',
  'ERR_MUTEX_QUEUE_FULL',
])

/**
 * The answer to a request that does not get its lock: a problem document (RFC 9457).
 *
 * 409 because the Idempotency-Key draft uses it for just this, and because no common client repeats
 * it by itself, as they do 429 and 503.
 *
 * @see https://www.rfc-editor.org/rfc/rfc9457
 * @see https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
 */
export class Refusal {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
  /** The same for error handlers: with `statusCode` and `headers`. */
  readonly error: RefusalError

  /** @param retryAfter in milliseconds */
  constructor(error: MutexError, busyStatus: number, retryAfter: number) {
    const { code } = error
    this.status = busy.has(code) ? busyStatus : 503
    const headers = {
      'Retry-After': String(Math.max(1, Math.ceil(retryAfter / 1000))),
      'Cache-Control': 'no-store',
    }
    this.error = Object.assign(error, { statusCode: this.status, headers })
    this.body = JSON.stringify({
      type: 'about:blank',
      title: STATUS_CODES[this.status] ?? 'Refused',
      status: this.status,
      detail: details[code] ?? details.ERR_MUTEX_STORE,
      code,
    })
    this.headers = {
      'Content-Type': 'application/problem+json; charset=utf-8',
      'Content-Length': String(Buffer.byteLength(this.body)),
      ...headers,
    }
  }

  /** Answers by way of Node's own response; HEAD gets no body. */
  answer(req: IncomingMessage, res: ServerResponse): void {
    res.statusCode = this.status
    for (const name in this.headers) res.setHeader(name, this.headers[name] ?? '')
    if (req.method === 'HEAD') res.end()
    else res.end(this.body)
  }
}
