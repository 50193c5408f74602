import { ClientGoneError } from '../errors.js'
import { abortSignal, giveBack, isHeld, type Lock, releaseOf, stopRenewing } from '../lock.js'
import type { Store } from '../stores/store.js'
import { report } from './report.js'

/** How a request holds. */
export interface HoldTerms {
  readonly onClientAbort: 'keep' | 'release'
  readonly awaitRelease: boolean
}

/** One lock in the hands of a request, from the grant to the release. */
export class Hold {
  #over = false
  #resume: (() => void) | undefined

  constructor(
    readonly lock: Lock,
    readonly store: Store,
    readonly terms: HoldTerms,
  ) {}

  /** Does this request hold the lock of that name by it? */
  has(store: Store, name: string): boolean {
    return (
      store === this.store &&
      isHeld(this.lock) &&
      this.lock.keys.some((key) => store.nameOf(key) === name)
    )
  }

  /** Is there anything left to be released? */
  get lives(): boolean {
    return !this.#over && isHeld(this.lock)
  }

  clientGone(): void {
    const { lock } = this
    if (this.#over || lock.key === null) return
    abortSignal(lock, new ClientGoneError('the client has left', { key: lock.key }))
    if (this.terms.onClientAbort === 'release') void this.release()
  }

  /** Nobody can tell any more when the request is over: the rest of the lease is its last. */
  limit(): void {
    if (!this.#over && !this.#resume && this.lock.key !== null) {
      this.#resume = stopRenewing(this.lock)
    }
  }

  /** It can be told again. */
  unlimit(): void {
    if (this.#over) return
    this.#resume?.()
    this.#resume = undefined
  }

  /**
   * Gives the lock back, unless the handler has. Whatever comes of it never changes the response.
   * @returns what settles when the store has answered, if it is asked
   */
  release(): Promise<void> | undefined {
    if (this.#over) return undefined
    this.#over = true
    if (this.lock.key === null) return releaseOf(this.lock)?.catch(() => {})
    return giveBack(this.lock)?.catch(unreleased)
  }
}

function unreleased(error: unknown): void {
  report('A lock was not released at the end of its request', error)
}
