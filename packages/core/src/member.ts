/** What `mutex.stats()` counts: of several keys each. */
export interface MutexStats {
  /** Locks held now. */
  held: number
  /** Callers waiting now. */
  waiting: number
  /** Locks acquired so far. */
  acquired: number
  /** Callers refused so far, when they waited or tried, for whatever reason. */
  refused: number
  /** Locks that ended without a release: lost, expired, or taken away by `close()`. */
  lost: number
  /** Callers refused, and releases that failed, because the store could not be asked. */
  storeErrors: number
}

/** One mutex (with all that were derived from it) in a core: what it has going on, and has done. */
export class Member {
  closed = false
  held = 0
  waiting = 0
  acquired = 0
  refused = 0
  lost = 0
  storeErrors = 0
  #releasing = 0
  #idle: (() => void)[] = []

  /** A lock is held. */
  begin(): void {
    this.held++
    this.acquired++
  }

  /** It is not any more, but for the command that gives it back. */
  end(release: Promise<boolean> | boolean): void {
    this.held--
    if (typeof release === 'boolean') {
      this.#settle()
      return
    }
    this.#releasing++
    const settled = () => {
      this.#releasing--
      this.#settle()
    }
    release.then(settled, () => {
      this.storeErrors++
      settled()
    })
  }

  #settle(): void {
    if (this.held + this.#releasing > 0 || this.#idle.length === 0) return
    for (const resolve of this.#idle.splice(0)) resolve()
  }

  /** Resolves when nothing is held and every release has been answered. */
  idle(): Promise<void> {
    return new Promise((resolve) => {
      this.#idle.push(resolve)
      this.#settle()
    })
  }

  stats(): MutexStats {
    const { held, waiting, acquired, refused, lost, storeErrors } = this
    return { held, waiting, acquired, refused, lost, storeErrors }
  }
}
