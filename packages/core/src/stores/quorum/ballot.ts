import { now } from '../../clock.js'
import { MutexStoreError } from '../../errors.js'
import type { Master, Names } from './master.js'
import { failureOf, majorityOf, Tally } from './tally.js'
import { reachOf, type Terms, Vote } from './vote.js'

/** How long the others may take when a majority has answered and not decided, in ms at least. */
const OTHERS = 50

/** Who is told how the masters have decided: one of the three, once. */
export interface Outcome {
  /** A majority gave its vote. */
  won(): void
  /**
   * A majority answered, but too many have given their vote to somebody else.
   * @param holders to whom
   * @param freeIn in how many ms a majority is free if nothing is renewed; `Infinity` if never
   */
  beaten(holders: ReadonlySet<string>, freeIn: number): void
  /** A majority could not be asked. */
  failed(error: MutexStoreError): void
}

/**
 * One try to get a lock under one owner value, and the hold that follows.
 *
 * https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/
 */
export class Ballot {
  /** As of when the votes' leases count: before they were asked for. */
  since: number = now()
  readonly #opened: number = this.since
  /** A token that is higher than all before, and the last one that a majority has reserved. */
  token = 0
  lastToken = 0
  readonly #terms: Terms
  readonly #outcome: Outcome
  readonly #votes: readonly Vote[]
  readonly #majority: number
  #decided = false
  #over = false
  /** The last token used, once it is over. */
  #used = 0
  #errors: MutexStoreError[] = []
  #timer: NodeJS.Timeout | undefined

  constructor(masters: readonly (readonly [Master, Names])[], terms: Terms, outcome: Outcome) {
    this.#terms = terms
    this.#outcome = outcome
    this.#votes = masters.map(([master, names]) => new Vote(master, names, terms))
    this.#majority = majorityOf(masters.length)
  }

  // Asking

  open(): void {
    const { lease, pause, timeout } = this.#terms
    for (const vote of this.#votes) {
      const ask = () => vote.ask(lease, pause, this.#rest, (answer) => this.#told(vote, answer))
      if (!vote.master.silent) {
        ask()
        continue
      }
      vote.hear = ask
      vote.master.await(ask)
      this.#timer ??= setTimeout(later, timeout, () => this.#late())
    }
  }

  /** How much of `timeout` is left for all that it takes. */
  get #rest(): number {
    return Math.max(1, this.#opened + this.#terms.timeout - now())
  }

  #told(vote: Vote, answer: boolean | MutexStoreError): void {
    if (this.#over) vote.takeBack(this.#used)
    if (this.#decided) return
    if (answer instanceof MutexStoreError) this.#errors.push(answer)
    this.#count()
  }

  /** Those that are still silent count as failed. */
  #late(): void {
    const words = `the store did not answer within ${Math.round(this.#terms.timeout)} ms`
    for (const { master, hear } of this.#of('none')) {
      if (hear) master.forget(hear)
      this.#errors.push(new MutexStoreError(words))
    }
    if (!this.#decided) this.#count()
  }

  #count(): void {
    const given = this.#of('given').length
    const asked = this.#of('asked').length
    const answered = given + this.#of('refused').length
    if (given >= this.#majority) {
      this.#win()
    } else if (this.#errors.length > this.#votes.length - this.#majority) {
      this.#decide()
      this.end()
      this.#outcome.failed(failureOf(this.#errors, this.#votes.length))
    } else if (answered >= this.#majority) {
      // A silent one is not waited for as one who might make the majority.
      if (given + asked < this.#majority) this.#lose()
      else this.#hurry()
    }
  }

  #of(state: Vote['state']): Vote[] {
    return this.#votes.filter((vote) => vote.state === state)
  }

  /** The votes are split, and those who could decide it are slower: but not than they use to be? */
  #hurry(): void {
    clearTimeout(this.#timer)
    const slowest = Math.max(...this.#of('asked').map(({ master }) => master.took))
    const patience = Math.max(OTHERS, now() - this.since, 2 * slowest)
    this.#timer = setTimeout(later, Math.min(patience, this.#terms.timeout), () => {
      if (this.#decided) return
      for (const { master } of this.#of('asked')) master.silent = true
      this.#lose()
    })
  }

  #decide(): void {
    this.#decided = true
    clearTimeout(this.#timer)
    for (const { master, hear } of this.#votes) if (hear) master.forget(hear)
  }

  #lose(): void {
    this.#decide()
    const holders = new Set(this.#of('refused').map(({ holder }) => holder))
    const free = this.#of('given').map(() => 0)
    const left = this.#of('refused').map(({ left }) => (left < 0 ? Number.POSITIVE_INFINITY : left))
    const waits = [...free, ...left.sort((a, b) => a - b)]
    this.end()
    this.#outcome.beaten(holders, waits[this.#majority - 1] ?? Number.POSITIVE_INFINITY)
  }

  /**
   * The highest of the tokens that a majority has given is higher than all that any holder had
   * before: each had reserved its own with a majority, and two majorities share a master. It counts
   * once a majority has reserved it too, and some more, which those whose clocks are slow have yet to
   * do.
   */
  #win(): void {
    this.#decide()
    const given = this.#of('given')
    this.token = Math.max(...given.map(({ first }) => first))
    this.#reserved(given)
    if (this.lastToken - this.token >= reachOf(this.#terms) / 2) {
      this.#outcome.won()
      return
    }
    this.renew(this.#terms.lease, this.token, this.#rest).then(
      (kept) => {
        if (this.#over) return
        if (kept) this.#outcome.won()
        else this.#lose()
      },
      (error: MutexStoreError) => {
        if (this.#over) return
        this.end()
        this.#outcome.failed(error)
      },
    )
  }

  /** The last token is what each of at least a majority of these has reserved. */
  #reserved(votes: readonly Vote[]): void {
    const lasts = votes.map(({ last }) => last).sort((a, b) => b - a)
    this.lastToken = lasts[this.#majority - 1] as number
  }

  // Once it has been decided

  /**
   * In how many ms the first of the other processes that wait is going to ask again, as far as is
   * known; -1 if none waits.
   */
  get nextAsk(): number {
    const known = this.#votes.filter(({ nextAsk }) => nextAsk >= 0)
    return known.length === 0 ? -1 : Math.min(...known.map(({ nextAsk }) => nextAsk))
  }

  /**
   * Makes the votes last `ms` from now, and reserves tokens after `token`. Whoever has not given its
   * vote, or has lost it, is asked again, for the sake of later: whether the lock is still ours is
   * for those to tell who have had it all the time.
   * @returns whether it still is
   * @throws MutexStoreError when that can't be known
   */
  async renew(ms: number, token: number, timeout: number): Promise<boolean> {
    const since = now()
    const given = this.#of('given')
    const tally = new Tally<Vote>(this.#votes.length, given.length)
    for (const vote of this.#votes) {
      if (vote.state === 'given') {
        vote.renew(ms, token, timeout, (answer) => tally.count(vote, answer))
      } else if (vote.state !== 'asked' && !vote.master.silent) {
        vote.ask(ms, 0, timeout, (answer) => this.#told(vote, answer))
      }
    }
    const kept = await tally.result
    if (!kept) return false
    this.since = since
    this.#reserved(kept)
    return true
  }

  /**
   * @param used the last token used
   * @param pause within how many ms this process asks again; 0 if it does not
   * @returns whether it was ours to the end
   * @throws MutexStoreError when that can't be known
   */
  async release(used: number, pause: number, timeout: number): Promise<boolean> {
    const votes = [...this.#of('given'), ...this.#of('asked')]
    const tally = new Tally<Vote>(this.#votes.length, votes.length)
    for (const vote of votes) {
      vote.release(used, pause, timeout, (answer) => tally.count(vote, answer))
    }
    this.end(used)
    return (await tally.result) !== undefined
  }

  /**
   * Nobody wants it any more: takes all votes back, those too that come later.
   * @param used the last token used
   */
  end(used: number = 0): void {
    if (this.#over) return
    this.#over = true
    this.#used = used
    this.#decide()
    for (const vote of this.#votes) vote.takeBack(used)
  }
}

/** A turn of the event loop later, so that what had arrived has been read. */
function later(then: () => void): void {
  setImmediate(then)
}
