/**
 * How long a process keeps passing a lock on within itself before it lets others have a go: other
 * processes that wait for the key, and everything else that waits for this event loop.
 */
export const SLICE = 1.5

/** Keeps hand-overs that need no I/O from starving the event loop. */
export class Pace {
  #turn = 0
  #known = false

  /** Have hand-overs gone on for a slice within this one turn of the event loop? */
  spent(at: number): boolean {
    if (!this.#known) {
      this.#known = true
      this.#turn = at
      setImmediate(() => {
        this.#known = false
      })
    }
    return at - this.#turn > SLICE
  }
}
