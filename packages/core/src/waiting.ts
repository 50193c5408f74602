import { now, timerUntil } from './clock.js'
import { Fifo } from './fifo.js'
import { asNobody } from './nobody.js'
import type { Place } from './place.js'

/** How long a look takes for each who waits, at the very most, in ms. */
const GLANCE = 0.001

/**
 * Those who wait in one line, first first, and the timer that sees to it that none of them waits for
 * too long. It is one for all, and left to run when somebody leaves: nearly all have left by then.
 */
export class Waiting extends Fifo<Place> {
  /** How many are timed. */
  #timed = 0
  #timer: NodeJS.Timeout | undefined
  /** When to look next. */
  #next = Number.POSITIVE_INFINITY
  /** Not sooner: in a long line, looks take time. */
  #soonest = 0

  /** From now on it is seen to that `place` does not wait longer than it wants. */
  time(place: Place): void {
    if (place.timed || place.due === Number.POSITIVE_INFINITY) return
    place.timed = true
    this.#timed++
    this.#expect(place.due)
  }

  override remove(place: Place): void {
    super.remove(place)
    if (!place.timed) return
    place.timed = false
    if (--this.#timed > 0) return
    // The timer keeps the process alive, for those who wait.
    clearTimeout(this.#timer)
    this.#next = Number.POSITIVE_INFINITY
  }

  /** Looks no later than `due`. */
  #expect(due: number): void {
    const at = Math.max(due, this.#soonest)
    if (at >= this.#next) return
    this.#next = at
    clearTimeout(this.#timer)
    this.#timer = asNobody(() => setTimeout(() => this.#ring(at), timerUntil(at)))
  }

  #ring(expected: number): void {
    // A timer may be a little early, and a faked one has no other clock.
    const at = Math.max(expected, now())
    // A turn of the event loop later, so that a lock that came during a stall is taken first.
    setImmediate(() => this.#look(at))
  }

  /** Sends away those whose time was over at `at`. */
  #look(at: number): void {
    let next = Number.POSITIVE_INFINITY
    const late: Place[] = []
    for (const place of this) {
      if (!place.timed) continue
      if (at >= place.due) late.push(place)
      else next = Math.min(next, place.due)
    }
    this.#next = Number.POSITIVE_INFINITY
    this.#soonest = now() + this.size * GLANCE
    this.#expect(next)
    // Last first: the store is asked anew each time that the first one leaves.
    for (const place of late.reverse()) place.line.leave(place, place.line.timeUp(place))
  }
}
