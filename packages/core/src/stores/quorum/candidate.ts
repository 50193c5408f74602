import { drift, now } from '../../clock.js'
import type { MutexStoreError } from '../../errors.js'
import { type Asker, Tenure, type Wish } from '../store.js'
import { Ballot, type Outcome } from './ballot.js'
import type { Master, Names } from './master.js'

/** The shortest pause before a process asks again, in ms, and how it grows while the holder stays. */
export const SOONEST = 10
const GROWTH = 1.5

/** Shorter than what it is meant to be at most, so that processes do not ask in step. */
const jitter = (most: number): number => most * (0.5 + Math.random() / 2)

/** Who has a vote, and under which name somebody asks for it. */
export interface Electorate {
  readonly masters: readonly Master[]
  /** What an owner value begins with that nobody has had. */
  owner(): string
}

/** One tenure at a quorum. Until a majority has given it the lock it asks, pauses, and asks again. */
export class Candidate extends Tenure implements Outcome {
  /** Of the last try: what comes late of one can't be taken for what belongs to the next. */
  declare owner: string
  readonly #name: string
  #tries = 0
  readonly #masters: readonly (readonly [Master, Names])[]
  #ballot: Ballot | undefined
  #asked = 0
  /** The next try. */
  #timer: NodeJS.Timeout | undefined
  #left = false
  #pause = SOONEST
  #holders: ReadonlySet<string> = new Set()

  constructor(asker: Asker, wish: Wish, electorate: Electorate) {
    super(asker, wish, '')
    this.#name = electorate.owner()
    this.#masters = electorate.masters.map((master) => [master, master.namesOf(wish.name)])
  }

  override lastToken(): number {
    return this.#ballot?.lastToken ?? 0
  }

  ask(): void {
    this.owner = `${this.#name}.${++this.#tries}`
    const { blocking, lease, storeTimeout: timeout } = this.wish.policy
    const pause = blocking ? this.#longer : 0
    const terms = { owner: this.owner, lease, timeout, pause }
    this.#ballot = new Ballot(this.#masters, terms, this)
    this.#asked = this.#ballot.since
    this.#ballot.open()
  }

  /** First asks when other processes have had their turn: in so many ms, or a little later. */
  askIn(ms: number): void {
    if (this.#ballot || this.#left) return
    this.asker.queued(this)
    clearTimeout(this.#timer)
    this.#timer = setTimeout(ask, Math.min(ms + jitter(SOONEST), this.wish.policy.delay), this)
  }

  get #longer(): number {
    return Math.min(GROWTH * this.#pause, this.wish.policy.delay)
  }

  won(): void {
    const ballot = this.#ballot as Ballot
    const { lease } = this.wish.policy
    const deadline = ballot.since + lease - drift(lease)
    // Too late, since the masters or this process took so long: it is asked for again.
    if (now() >= deadline) {
      ballot.end()
      this.asker.queued(this)
      this.ask()
      return
    }
    this.deadline = deadline
    this.heard = ballot.since
    this.token = ballot.token
    this.contended = ballot.nextAsk >= 0
    this.asker.granted(this)
  }

  beaten(holders: ReadonlySet<string>, freeIn: number): void {
    const { blocking, delay } = this.wish.policy
    if (!blocking) {
      this.asker.refused(this)
      return
    }
    this.asker.queued(this)
    if (this.#left) return
    const isSame = [...holders].some((holder) => this.#holders.has(holder))
    this.#pause = isSame ? this.#longer : Math.min(SOONEST, delay)
    this.#holders = holders
    const pause = jitter(this.#pause)
    this.#timer = setTimeout(ask, Math.min(pause, freeIn + jitter(SOONEST / 2)), this)
  }

  failed(error: MutexStoreError): void {
    this.asker.failed(this, error, this.#asked)
  }

  /** The one it was asked for has left. */
  leave(): void {
    this.#left = true
    clearTimeout(this.#timer)
    this.#ballot?.end()
  }

  /**
   * @param isNext whether this process is going to ask again
   * @param told is told in how many ms others are going to ask, if they are
   */
  async release(isNext: boolean, told: (ms: number) => void): Promise<boolean> {
    const ballot = this.#ballot as Ballot
    const kept = await ballot.release(this.token ?? 0, isNext ? 2 * SOONEST : 0, this.storeTimeout)
    if (ballot.nextAsk >= 0) told(ballot.nextAsk)
    // Leases that have ended on the way say nothing: it was given back in time.
    return kept || now() >= this.deadline
  }

  async renew(ms: number): Promise<boolean> {
    const ballot = this.#ballot as Ballot
    const kept = await ballot.renew(ms, this.token ?? 0, this.patience)
    if (kept) {
      this.contended = ballot.nextAsk >= 0
      this.heard = ballot.since
    } else {
      ballot.end(this.token ?? 0)
    }
    return kept
  }
}

function ask(candidate: Candidate): void {
  candidate.ask()
}
