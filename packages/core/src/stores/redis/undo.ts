import { setTimeout as sleep } from 'node:timers/promises'
import { now } from '../../clock.js'
import type { Bid } from './bid.js'
import { type Settled, settled } from './trip.js'

/** How long those who left are remembered, in ms: a grant may still come for them. */
const REMEMBERED = 10_000

/** What an `Undo` asks of the store. */
export interface Undoing {
  cancel(bid: Bid): Promise<unknown>
  /** Is there no use in trying again? */
  hopeless(): boolean
}

/** Takes back what nobody wants any more, while what Redis makes of it is not known. */
export class Undo {
  readonly #store: Undoing
  /** Those who left, oldest first, and since when. */
  readonly #left = new Map<number, { bid: Bid; at: number }>()
  readonly #going = new Set<Promise<void>>()

  constructor(store: Undoing) {
    this.#store = store
  }

  /** It has left. If anybody is told of it again, it is to be taken back. */
  remember(bid: Bid): void {
    const at = now()
    for (const [n, left] of this.#left) {
      if (at - left.at < REMEMBERED) break
      this.#left.delete(n)
    }
    this.#left.set(bid.n, { bid, at })
  }

  /** @param asked of what was sent for the bid */
  begin(bid: Bid, asked: Settled = settled): void {
    this.remember(bid)
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
    const { policy, blockTime } = bid.wish
    const until = now() + policy.lease + Math.min(blockTime, REMEMBERED)
    for (let pause = 50; now() < until; pause = Math.min(2 * pause, 1000)) {
      try {
        await this.#store.cancel(bid)
        if (!unsure) return
      } catch {}
      if (this.#store.hopeless()) return
      await sleep(pause, undefined, { ref: false })
    }
  }

  async idle(): Promise<void> {
    while (this.#going.size > 0) await Promise.all(this.#going)
  }
}
