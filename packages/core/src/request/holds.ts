import { type Holder, runAs } from '../reentry.js'
import type { Store } from '../stores/store.js'
import { CorkedAnswer } from './corked-answer.js'
import type { Exchange } from './exchange.js'
import { HeldEnd } from './held-end.js'
import type { Hold } from './hold.js'
import { isHttp2 } from './http.js'
import type { LastBytes } from './last-bytes.js'

/**
 * Who is left to end a response when a handler is done: `'nobody'`, the `'framework'` with what the
 * handler gave it, or somebody `'unknown'`: callbacks, or the middleware that comes next.
 */
export type Ending = 'nobody' | 'framework' | 'unknown'

/**
 * How long an answer that waits for its lock's release waits for the handler: one that answers
 * early and works on is not to be waited for.
 */
const HANDLER_GRACE = 50

/**
 * The locks that a request holds: they go back when the server has ended the response (its exchange
 * tells) and the handler is done (whoever runs it tells), whichever is later.
 */
export class Holds implements Holder {
  #all: Hold[] = []
  /** The handlers at work of which it will be known when they are done. */
  #working = 0
  /** Who is left to end the response. */
  #left: Ending = 'unknown'
  /** Has what was to be sent ended, or broken? */
  #dropped = false

  constructor(readonly exchange: Exchange) {}

  /** Are there any? */
  get any(): boolean {
    return this.#all.length > 0
  }

  /** Is there anything left to be released? */
  get live(): boolean {
    return this.#all.some((hold) => hold.lives)
  }

  /** Does the request hold the lock of that name? */
  has(store: Store, name: string): boolean {
    return this.#all.some((hold) => hold.has(store, name))
  }

  /** Of these keys, those that the request does not hold yet. */
  lacking(store: Store, keys: string | readonly string[]): string | readonly string[] | null {
    if (!this.any) return keys
    const wanted = typeof keys === 'string' ? [keys] : keys
    const lacking = wanted.filter((key) => !this.has(store, store.nameOf(key)))
    return lacking.length === 0 ? null : lacking
  }

  /** The request holds a lock from now on. */
  add(hold: Hold): void {
    this.#all.push(hold)
    if (hold.terms.awaitRelease) this.exchange.lastBytes ??= lastBytesOf(this.exchange)
  }

  /** Runs what the request is for, so that its asks for what it holds are known to be its own. */
  run<T>(body: () => T): T {
    return this.any ? runAs(this, body) : body()
  }

  /** A handler begins that will tell when it is done. */
  begin(): void {
    this.#working++
    for (const hold of this.#all) hold.unlimit()
    this.exchange.noticeEnd()
  }

  /** A handler hands the request on, to one who may tell when he is done, or not. */
  passOn(): void {
    this.#left = 'unknown'
  }

  /**
   * It is done: who is left to end the response, if it has not? One that has handed the request on
   * does not say: that it is done may come before those behind it are, or after.
   */
  done(left: Ending | undefined): void {
    this.#working--
    if (left) this.#left = left
    this.settle()
  }

  /** What was to be sent is over: if the client has left, nobody will end the response any more. */
  drop(): void {
    this.#dropped = true
    this.settle()
  }

  clientGone(): void {
    for (const hold of this.#all) hold.clientGone()
  }

  /** Releases if the request is over, or sees to it that it will be. */
  settle(): void {
    const { over, ended, lastBytes } = this.exchange
    if (!over || !this.any) return
    if (this.#working > 0) {
      lastBytes?.flushIn(HANDLER_GRACE)
      return
    }
    if (!ended && !this.#abandoned) {
      for (const hold of this.#all) hold.limit()
      return
    }
    // From here on only the store keeps it waiting, and that no longer than `storeTimeout`.
    lastBytes?.stay()
    const holds = this.#all
    this.#all = []
    // The one taken last is given back first.
    const releases = holds.reverse().map((hold) => hold.release())
    if (lastBytes) void Promise.all(releases).then(() => lastBytes.flush())
  }

  /** The client has left, the handler is done: will nobody end the response any more? */
  get #abandoned(): boolean {
    const { ending, res } = this.exchange
    if (ending) return false
    if (this.#dropped) return true
    if (this.#left === 'unknown') return false
    return this.#left === 'nobody' || res.headersSent
  }
}

/** What keeps back the end of an answer: on HTTP/2 nothing where somebody may put off the real end. */
function lastBytesOf({ res, wrapped, innerEnd }: Exchange): LastBytes | undefined {
  if (!isHttp2(res)) return new CorkedAnswer(res)
  return wrapped ? undefined : new HeldEnd(res, innerEnd)
}
