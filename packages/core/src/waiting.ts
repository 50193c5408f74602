import { now } from './clock.js'
import { Fifo } from './fifo.js'
import type { Place } from './place.js'

/**
 * Those who wait in one line, first first, and the timer that sees to it that none of them waits for
 * too long. It is one for all, and left to run when somebody leaves: nearly all have left by then.
 */
export class Waiting extends Fifo<Place> {
  #timer: NodeJS.Timeout | undefined
  #next = Number.POSITIVE_INFINITY

  /** From now on it is seen to that `place` does not wait longer than it wants. */
  time(place: Place): void {
    place.timed = true
    this.#expect(place.due)
  }

  override remove(place: Place): void {
    super.remove(place)
    if (this.size > 0 || !this.#timer) return
    // Whoever waits keeps the process alive by it.
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#next = Number.POSITIVE_INFINITY
  }

  /** Looks at the clock no later than `at`. */
  #expect(at: number): void {
    if (at >= this.#next) return
    this.#next = at
    clearTimeout(this.#timer)
    const wait = Math.max(0, Math.ceil(at - now()))
    // A turn of the event loop later, so that a lock that came during a stall is taken first.
    this.#timer = setTimeout(() => setImmediate(() => this.#look()), wait)
  }

  #look(): void {
    const at = now()
    let next = Number.POSITIVE_INFINITY
    const late: Place[] = []
    for (const place of this) {
      if (!place.timed) continue
      if (at >= place.due) late.push(place)
      else next = Math.min(next, place.due)
    }
    this.#next = Number.POSITIVE_INFINITY
    this.#expect(next)
    // Last first: the store is asked anew each time that the first one leaves.
    for (const place of late.reverse()) place.line.leave(place, place.line.timeUp(place))
  }
}
