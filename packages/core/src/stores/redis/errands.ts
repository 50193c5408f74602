import { now } from '../../clock.js'
import type { MutexStoreError } from '../../errors.js'
import type { Bid } from './bid.js'
import type { Freight } from './courier.js'
import { fenceOf, type Names } from './names.js'
import { scripts, type Verb } from './scripts.js'
import type { Answer, Errand, Settled } from './trip.js'

/** What hardly any turn of an event loop takes, in ms. */
const LONG_TURN = 1000

/** What is asked of Redis: the fence is the first key of a call. */
export const freight: Freight<Verb, Names> = {
  scripts,
  pack(keys, names, inSlots) {
    if (keys.length === 0) keys.push(fenceOf(names, inSlots))
    keys.push(names.lock, names.queue)
  },
}

/** Where the outcomes of errands go. */
export interface Outcomes {
  /** How often the connection has broken. */
  readonly breaks: number
  /** An ask is sent. */
  sends(bid: Bid): void
  /** @param asked when the ask that is answered was sent */
  answered(bid: Bid, answer: Answer, asked: number): void
  failed(bid: Bid, error: MutexStoreError, asked: number, settled: Settled): void
  /** A release has been answered. */
  returned(bid: Bid): void
  /** Whether a release was in time is not known. */
  unreleased(bid: Bid, settled: Settled): void
}

/** Asks for the lock of a bid. */
export class Ask implements Errand<Names> {
  readonly mayWait = true

  constructor(
    readonly store: Outcomes,
    readonly bid: Bid,
    readonly timeout: number,
  ) {}

  get names(): Names {
    return this.bid.names
  }

  pack(args: string[]): void {
    const { owner, terms, wish } = this.bid
    this.store.sends(this.bid)
    args.push(owner, String(Math.ceil(wish.policy.lease)), terms)
  }

  answered(answer: Answer, sent: number): void {
    this.store.answered(this.bid, answer, sent)
  }

  failed(error: MutexStoreError, settled: Settled, sent: number): void {
    this.store.failed(this.bid, error, sent, settled)
  }
}

/** Gives the lock of a bid back, and asks for its heir. */
export class Return implements Errand<Names> {
  readonly #breaks: number

  constructor(
    readonly store: Outcomes,
    readonly bid: Bid,
    readonly heir: Bid | undefined,
    readonly resolve: (kept: boolean) => void,
    readonly reject: (error: MutexStoreError) => void,
  ) {
    this.#breaks = store.breaks
  }

  get names(): Names {
    return this.bid.names
  }

  get timeout(): number {
    return this.bid.storeTimeout
  }

  /** Not if others wait for the lock, or its lease could end meanwhile. */
  get mayWait(): boolean {
    return !this.bid.contended && !this.heir && this.bid.deadline - now() > LONG_TURN
  }

  pack(args: string[]): void {
    const { bid, heir } = this
    if (heir) this.store.sends(heir)
    args.push(bid.owner, bid.stay, bid.used)
    args.push(heir ? `${heir.owner}|${Math.ceil(heir.wish.policy.lease)}|${heir.terms}` : '')
  }

  answered(answer: Answer, sent: number): void {
    const [kept, asked] = typeof answer === 'object' ? answer : [answer]
    if (this.heir && asked !== undefined) this.store.answered(this.heir, asked, sent)
    this.store.returned(this.bid)
    this.resolve(Number(kept) === 1 || this.#isUnknown)
  }

  /**
   * Sent again after a break, it may find that others came and went: that says nothing. Nor does a
   * lease that has ended on the way: it was given back in time.
   */
  get #isUnknown(): boolean {
    return this.store.breaks !== this.#breaks || now() >= this.bid.deadline
  }

  failed(error: MutexStoreError, settled: Settled, sent: number): void {
    if (this.heir) this.store.failed(this.heir, error, sent, settled)
    this.store.unreleased(this.bid, settled)
    this.reject(error)
  }
}
