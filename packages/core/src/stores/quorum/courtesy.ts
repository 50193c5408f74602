import { now } from '../../clock.js'

/**
 * Whom this process lets go first. Nobody keeps a queue for all processes, so one that has just given
 * a lock back while others waited would mostly be the first to ask for it again.
 */
export class Courtesy {
  readonly #until = new Map<string, number>()

  /** Others are going to ask for the lock within `ms`. */
  show(name: string, ms: number): void {
    const at = now()
    for (const [old, until] of this.#until) {
      if (until > at) break
      this.#until.delete(old)
    }
    this.#until.delete(name)
    this.#until.set(name, at + ms)
  }

  /** For how many ms more. */
  left(name: string): number {
    return Math.max(0, (this.#until.get(name) ?? 0) - now())
  }
}
