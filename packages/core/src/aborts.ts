/** Who is told when a signal aborts. */
export interface Abortable {
  aborted(reason: unknown): void
}

/** What calls off a wait, other than an AbortSignal: that costs more to make than a lock to get. */
export interface Caller {
  /** @throws why it needs no lock any more, if so */
  throwIfAborted(): void
  add(waiting: Abortable): void
  delete(waiting: Abortable): void
}

const watched = new WeakMap<AbortSignal, Aborts>()

/**
 * One listener for each signal, however many wait under it: Node.js takes more than ten for a leak,
 * and one signal that ends everything at shutdown is nothing unusual.
 */
export class Aborts {
  readonly #signal: AbortSignal
  readonly #waiting = new Set<Abortable>()

  private constructor(signal: AbortSignal) {
    this.#signal = signal
  }

  static of(signal: AbortSignal): Aborts {
    let aborts = watched.get(signal)
    if (!aborts) {
      aborts = new Aborts(signal)
      watched.set(signal, aborts)
    }
    return aborts
  }

  add(one: Abortable): void {
    if (this.#waiting.size === 0) this.#signal.addEventListener('abort', this)
    this.#waiting.add(one)
  }

  delete(one: Abortable): void {
    if (!this.#waiting.delete(one) || this.#waiting.size > 0) return
    this.#signal.removeEventListener('abort', this)
  }

  handleEvent(): void {
    // Last first: the store is asked anew each time that the first in a line leaves.
    for (const one of [...this.#waiting].reverse()) one.aborted(this.#signal.reason)
  }
}

/** By what to be told when a wait is called off. */
export function callerOf(signal: AbortSignal | Caller): Pick<Caller, 'add' | 'delete'> {
  return signal instanceof AbortSignal ? Aborts.of(signal) : signal
}
