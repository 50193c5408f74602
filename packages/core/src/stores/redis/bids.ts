import type { Bid } from './bid.js'

/** How many chains there are at least; a power of two, as all their counts. */
const FEWEST = 64

/**
 * All bids of a store by their numbers, which are consecutive: the last bits spread them evenly.
 *
 * A Map would do, but makes itself anew all the time while entries come and go: with one lock at a
 * time that costs a quarter of all that is done for it.
 */
export class Bids {
  #chains: (Bid | undefined)[] = new Array(FEWEST).fill(undefined)
  #size = 0

  get(n: number): Bid | undefined {
    let bid = this.#chains[n & (this.#chains.length - 1)]
    while (bid && bid.n !== n) bid = bid.next
    return bid
  }

  /** `bid` must not be in it. */
  add(bid: Bid): void {
    if (++this.#size > this.#chains.length) this.#spread(this.#chains.length * 2)
    this.#link(bid)
  }

  /** Does nothing if `bid` is not in it. */
  delete(bid: Bid): void {
    const chain = bid.n & (this.#chains.length - 1)
    let before: Bid | undefined
    let one = this.#chains[chain]
    while (one && one !== bid) {
      before = one
      one = one.next
    }
    if (!one) return
    if (before) before.next = bid.next
    else this.#chains[chain] = bid.next
    bid.next = undefined
    this.#size--
    const { length } = this.#chains
    if (length > FEWEST && this.#size < length / 8) this.#spread(length / 2)
  }

  *[Symbol.iterator](): Generator<Bid> {
    for (const first of this.#chains) {
      for (let bid = first; bid; bid = bid.next) yield bid
    }
  }

  #link(bid: Bid): void {
    const chain = bid.n & (this.#chains.length - 1)
    bid.next = this.#chains[chain]
    this.#chains[chain] = bid
  }

  #spread(length: number): void {
    const bids = [...this]
    this.#chains = new Array(length).fill(undefined)
    for (const bid of bids) this.#link(bid)
  }
}
