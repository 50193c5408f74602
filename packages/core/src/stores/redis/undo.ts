import { setTimeout as sleep } from 'node:timers/promises'
import { now } from '../../clock.js'
import { asNobody } from '../../nobody.js'
import type { Bid } from './bid.js'
import { type Settled, settled } from './trip.js'

/** How long those who left are remembered, in ms: a grant may still come for them. */
const REMEMBERED = 10_000

/** How many are tried again at once of those of which nobody told what became of the last try. */
const FEW = 32

/** What became of a cancel: Redis has answered, or it can't land any more, or nobody ever tells. */
export type Fate = 'answered' | 'failed' | 'given up'

/** What an `Undo` asks of the store. */
export interface Undoing {
  /**
   * Gives its fate once the client has done with it.
   * @param mayWait for others to come along
   */
  cancel(bid: Bid, mayWait: boolean): Promise<Fate>
  /** Is there no connection? What is sent then waits for the next one, behind what was sent before. */
  outOfReach(): boolean
  /** Does it owe an answer? What was sent before may land when it goes on, however late. */
  hangs(): boolean
  /** Is there no use in trying again? */
  hopeless(): boolean
}

/** Takes back what nobody wants any more, while what Redis makes of it is not known. */
export class Undo {
  readonly #store: Undoing
  /** Those who left, and until when they are remembered. */
  readonly #left = new Map<number, { bid: Bid; until: number }>()
  #timer: NodeJS.Timeout | undefined
  readonly #going = new Set<Promise<void>>()
  /** How many are tried again, and those who wait to be. */
  #trying = 0
  readonly #next: (() => void)[] = []

  constructor(store: Undoing) {
    this.#store = store
  }

  /** It has left. If anybody is told of it again, it is to be taken back. */
  #remember(bid: Bid): void {
    this.#left.set(bid.n, { bid, until: now() + REMEMBERED })
    this.#timer ??= asNobody(() => setInterval(() => this.#forget(), REMEMBERED)).unref()
  }

  #forget(): void {
    const at = now()
    for (const [n, { until }] of this.#left) if (at >= until) this.#left.delete(n)
    if (this.#left.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  /** @param asked of what was sent for the bid */
  begin(bid: Bid, asked: Settled = settled): void {
    this.#remember(bid)
    const going = this.#cancel(bid, asked).finally(() => this.#going.delete(going))
    this.#going.add(going)
  }

  /** A grant has come for somebody who may have left. */
  late(n: number): void {
    const left = this.#left.get(n)
    if (left) this.begin(left.bid)
  }

  /** Cancels until Redis says that it is done, or time has ended all that could be left. */
  async #cancel(bid: Bid, asked: Settled): Promise<void> {
    const unsure = !(await asked)
    const { lease, wish } = bid
    // Who asked for the lock may not have been its last holder.
    const long = Math.max(lease, wish.policy.lease) + Math.min(wish.blockTime, REMEMBERED)
    let until = now() + long
    let fate: Fate | undefined
    for (let pause = 50; now() < until; pause = Math.min(2 * pause, 1000)) {
      // One command is enough for the next connection: more would only pile up until then.
      if (!fate || !this.#store.outOfReach()) {
        fate = await this.#try(bid, fate, until)
        if (fate === 'answered' && !unsure) return
      }
      if (this.#store.hopeless()) return
      // What has been given up is sent by the next connection, however late there is one.
      if (this.#store.hangs() || (unsure && this.#store.outOfReach())) until = now() + long
      await sleep(pause, undefined, { ref: false })
    }
  }

  /** @param last the fate of the try before, if there was one */
  #try(bid: Bid, last: Fate | undefined, until: number): Promise<Fate> {
    const cancel = () => this.#store.cancel(bid, last !== undefined)
    if (last !== 'given up' || this.#store.hangs()) return cancel()
    // When its turn comes, there may be no use in it any more.
    return this.#inTurn(() => (now() < until && !this.#store.hopeless() ? cancel() : last))
  }

  /**
   * What was given up waits before a node of a Cluster that hangs: more of it is not to pile up there.
   * Before a single server the store sees to that.
   */
  async #inTurn<T>(task: () => Promise<T> | T): Promise<T> {
    if (this.#trying < FEW) this.#trying++
    else await new Promise<void>((resolve) => this.#next.push(resolve))
    try {
      return await task()
    } finally {
      const next = this.#next.shift()
      if (next) next()
      else this.#trying--
    }
  }

  async idle(): Promise<void> {
    while (this.#going.size > 0) await Promise.all(this.#going)
  }
}
