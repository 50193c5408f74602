import { MutexStoreError } from '../../errors.js'
import { type Answer, bothSettled, type Settled, settled, untold } from '../redis/trip.js'
import type { Master, Names, Verb } from './master.js'

type Reply = readonly Answer[]

/** @param isAgain may it have been sent again, and come once more? */
type Told = (reply: Reply, error: MutexStoreError | undefined, isAgain: boolean) => void

/** What is asked for. */
export interface Terms {
  readonly owner: string
  readonly lease: number
  /** How long one command may take. */
  readonly timeout: number
  /** Within how many ms this process asks again if it is refused; 0 if it does not. */
  readonly pause: number
}

/**
 * How many tokens a vote reserves, at most: with one for each microsecond, so far may the masters'
 * clocks differ before a second round is needed. No more than a crashed holder takes time for, so
 * that fences do not outrun the clock.
 */
const REACH = 100_000

export const reachOf = ({ lease }: Terms): number => Math.ceil(Math.min(REACH, lease * 1000))

const ms = (duration: number): string => String(Math.ceil(duration))

/** One master's vote for one owner. */
export class Vote {
  /** `unknown`: asked for, and what came of it can't be told. */
  state: 'none' | 'asked' | 'given' | 'refused' | 'unknown' = 'none'
  /** Given: the tokens reserved, and in how many ms the next process asks (-1: none does). */
  first = 0
  last = 0
  nextAsk = -1
  /** Refused: by whose vote, and how long that lasts (-1: for ever). */
  holder = ''
  left = 0
  /** Asks for it when its silent master is heard of again. */
  hear: (() => void) | undefined
  /** Has the master been asked for it, ever? */
  #sent = false
  /** Of what was sent for it and not answered. */
  #settled: Settled = settled
  /** May an ask that was given up still land, whatever a later one was told? */
  #owed = false
  /** Does the master owe the answer to a renewal that was given up? */
  #renewing = false
  /** How long it may outlast what was sent for it. */
  #lease = 0
  #arrived: ((answer: boolean | MutexStoreError) => void) | undefined

  constructor(
    readonly master: Master,
    readonly names: Names,
    readonly terms: Terms,
  ) {}

  get #reach(): string {
    return String(reachOf(this.terms))
  }

  /** @param told is told whether it is given */
  ask(
    lease: number,
    pause: number,
    timeout: number,
    told: (answer: boolean | MutexStoreError) => void,
  ): void {
    this.state = 'asked'
    this.hear = undefined
    this.#lease = Math.max(this.#lease, lease)
    const args = [this.terms.owner, ms(lease), this.#reach, ms(pause)]
    this.#send('acquire', args, timeout, (reply, error, isAgain) => {
      // Nobody tells when.
      if (isAgain) {
        this.#owed = true
        this.#settled = untold
      }
      if (error) {
        this.state = 'unknown'
        this.#owed = true
      } else if (Number(reply[0]) === 1) this.#given(reply)
      else this.#refused(reply)
      const arrived = this.#arrived ?? told
      this.#arrived = undefined
      arrived(error ?? this.state === 'given')
    })
  }

  #given([, ...rest]: Reply): void {
    const [first = 0, last = 0, nextAsk = -1] = rest.map(Number)
    this.state = 'given'
    this.first = first
    this.last = last
    this.nextAsk = nextAsk
  }

  #refused([, left = -1, holder = '']: Reply): void {
    this.state = 'refused'
    this.left = Number(left)
    this.holder = String(holder)
  }

  /**
   * Makes it last, and reserves tokens after this one. Tells whether it was there all the time. One
   * renewal at a time: before a master that hangs they would pile up for as long as the lock is held.
   */
  renew(
    lease: number,
    token: number,
    timeout: number,
    told: (answer: boolean | MutexStoreError) => void,
  ): void {
    if (this.#renewing) {
      told(new MutexStoreError('the store has not answered an earlier renewal'))
      return
    }
    this.#lease = Math.max(this.#lease, lease)
    const args = [this.terms.owner, ms(lease), String(token), this.#reach]
    this.#send('renew', args, timeout, ([kept, last, nextAsk], error) => {
      this.#renewing = error !== undefined
      if (error) {
        void this.#settled.then(() => {
          this.#renewing = false
        })
      }
      const isKept = Number(kept) === 1
      if (isKept) {
        this.last = Number(last)
        this.nextAsk = Number(nextAsk)
      } else if (!error && this.state === 'given') {
        this.state = 'refused'
      }
      told(error ?? isKept)
    })
  }

  /**
   * Gives it back; one that is asked for, once it has come.
   * @param used the last token used
   * @param pause within how many ms this process asks again; 0 if it does not
   * @param told is told whether it was there
   */
  release(
    used: number,
    pause: number,
    timeout: number,
    told: (answer: boolean | MutexStoreError) => void,
  ): void {
    if (this.state === 'asked') {
      this.#arrived = (answer) => {
        if (this.state === 'given') this.release(used, pause, timeout, told)
        else told(answer)
        this.takeBack(used)
      }
      return
    }
    this.state = 'asked'
    this.nextAsk = -1
    const args = [this.terms.owner, String(used), ms(pause)]
    this.#send('release', args, timeout, ([kept, nextAsk = -1], error, isAgain) => {
      this.state = error ? 'unknown' : 'none'
      this.nextAsk = Number(nextAsk)
      // The second may find that others came and went: that says nothing.
      told(error ?? (Number(kept) === 1 || isAgain))
      this.takeBack(used)
    })
  }

  /** Takes it back if it may be there, until the master says that it has or its time is over. */
  takeBack(used: number): void {
    const isThere = this.state === 'given' || this.state === 'unknown'
    if (this.state === 'asked' || !this.#sent || !(isThere || this.#owed)) return
    this.state = 'none'
    this.#owed = false
    const { owner, timeout } = this.terms
    const args = [owner, String(used), '0']
    const { names } = this
    this.master.undo({ names, args, lease: this.#lease, timeout, settled: this.#settled })
  }

  #send(verb: Verb, args: readonly string[], timeout: number, told: Told): void {
    // What is first sent after a break is not sent again because of it.
    let breaks: number | undefined
    const isAgain = () => breaks !== undefined && breaks !== this.master.breaks
    this.master.send(verb, {
      names: this.names,
      timeout,
      pack: (all) => {
        this.#sent = true
        breaks = this.master.breaks
        all.push(...args)
      },
      answered: (answer) =>
        told(typeof answer === 'object' ? answer : [answer], undefined, isAgain()),
      failed: (error, settled) => {
        this.#settled = bothSettled(this.#settled, settled)
        told([], error, isAgain())
      },
    })
  }
}
