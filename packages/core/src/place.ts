import { type Abortable, type Caller, callerOf } from './aborts.js'
import { now } from './clock.js'
import { type MutexError, MutexStoreError } from './errors.js'
import type { Link } from './fifo.js'
import type { Line } from './line.js'
import type { Member } from './member.js'
import type { Policy } from './options.js'

/** What a caller wants of a line. */
export interface Want {
  readonly key: string
  readonly policy: Policy
  readonly member: Member
  /** How long it may wait: what is left of `policy.blockTime`. */
  readonly blockTime: number
  /** How long it may hold: `policy.expiry`, or `Infinity` until the last of several keys has come. */
  readonly expiry: number
  readonly signal: AbortSignal | Caller | undefined
  granted(place: Place): void
  refused(error: unknown): void
}

/**
 * One caller's place in the line of one key: it waits, then holds, then is over.
 * The line moves it; `ended` says why holding is over, if not by a release.
 */
export class Place implements Link<Place>, Abortable {
  before: Place | undefined
  after: Place | undefined
  state: 'new' | 'waiting' | 'holding' | 'over' = 'new'
  readonly since: number = now()
  /** How long it waited, once it holds. */
  waited = 0
  /** While holding: the owner value and fencing token of this hold. */
  owner = ''
  token: number | null = null
  ended: MutexError | undefined
  /** Holding for the rest of its lease, which ends before its `expiry`. */
  unrenewed = false
  /** Set by a holder who wants to hear of a loss. */
  onLost: ((reason: MutexError) => void) | undefined
  /** Is it seen to that it does not wait longer than it wants? */
  timed = false

  constructor(
    readonly line: Line,
    readonly want: Want,
  ) {}

  /** When it stops waiting. */
  get due(): number {
    return this.since + this.want.blockTime
  }

  /** It has to wait, until its caller's own signal aborts. */
  wait(): void {
    const { member, signal } = this.want
    this.state = 'waiting'
    member.waiting++
    if (signal) callerOf(signal).add(this)
  }

  #stopWaiting(): void {
    if (this.state !== 'waiting') return
    const { member, signal } = this.want
    member.waiting--
    if (signal) callerOf(signal).delete(this)
  }

  aborted(reason: unknown): void {
    this.line.leave(this, reason)
  }

  hold(owner: string, token: number | null, at: number): void {
    this.#stopWaiting()
    this.state = 'holding'
    this.owner = owner
    this.token = token
    this.waited = at - this.since
    this.want.member.begin()
    this.want.granted(this)
  }

  refuse(error: unknown): void {
    this.#stopWaiting()
    this.state = 'over'
    const { member } = this.want
    member.refused++
    if (error instanceof MutexStoreError) member.storeErrors++
    this.want.refused(error)
  }

  /** Holding is over; `release` is what becomes of the lock. */
  free(release: Promise<boolean> | boolean): void {
    this.state = 'over'
    this.want.member.end(release)
  }

  /** Holding is over, but the holder does not know. */
  lose(reason: MutexError, release: Promise<boolean> | boolean): void {
    this.free(release)
    this.ended = reason
    this.want.member.lost++
    this.onLost?.(reason)
  }
}
