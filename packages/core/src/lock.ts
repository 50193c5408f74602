import { about, type MutexError, type MutexStoreError, MutexUnlockError } from './errors.js'
import type { Place } from './place.js'

/** Of a lock that went to the next in this process: there was nobody to ask. */
const released: Promise<void> = Promise.resolve()

let abort: (lock: Lock, reason: MutexError) => void
let giveBackOf: (lock: Lock) => Promise<void> | undefined
let placesOf: (lock: Lock) => readonly Place[]
let releaseBy: (lock: Lock) => Promise<void> | undefined
let tellOver: (lock: Lock, over: Over) => void

/** Hears at once that a hold ends: by a release under way, or by a loss, which rejects. */
type Over = (end: Promise<void>) => void

/**
 * A lock that is held, on one key or on several.
 *
 * @example
 * await using lock = await mutex.acquireLock('user:42')
 */
export class Lock implements AsyncDisposable {
  /** How long it was waited for, in milliseconds. */
  readonly waited: number
  /** In the order in which the keys were given. */
  readonly #places: readonly Place[]
  #released = false
  /** The release that the store was asked for. */
  #release: Promise<void> | undefined
  #reason: MutexError | undefined
  #controller: AbortController | undefined
  #over: Over | undefined

  static {
    abort = (lock, reason) => lock.#abort(reason)
    giveBackOf = (lock) => lock.#giveBack()
    placesOf = (lock) => lock.#places
    releaseBy = (lock) => lock.#release
    tellOver = (lock, over) => {
      lock.#over = over
      lock.#watchLoss()
    }
  }

  /** @internal Locks come from a mutex. */
  constructor(places: readonly Place[], waited: number) {
    this.#places = places
    this.waited = waited
  }

  /** The key, as it was given (of several: the first); `null` once released. */
  get key(): string | null {
    return this.#released ? null : (this.#places[0]?.want.key ?? null)
  }

  /** What the store holds for this lock (of several keys: the first one's); `null` once released. */
  get value(): string | null {
    return this.#released ? null : (this.#places[0]?.owner ?? null)
  }

  /** All keys, in the order given and without duplicates; empty once released. */
  get keys(): readonly string[] {
    return this.#released ? [] : this.#places.map((place) => place.want.key)
  }

  /**
   * A number, as a string, that is higher than that of every earlier holder of the key (of several
   * keys: the first one's). Have the resource that you write to refuse a lower one than it has seen,
   * and a holder who was late to notice the loss of its lock can do no harm.
   * `null` once released, and where the store has none.
   */
  get fencingToken(): string | null {
    return this.#released ? null : tokenOf(this.#places[0])
  }

  /** The fencing token of each key. Empty once released. */
  get fencingTokens(): ReadonlyMap<string, string | null> {
    return new Map(
      this.#released ? [] : this.#places.map((place) => [place.want.key, tokenOf(place)]),
    )
  }

  /**
   * Aborts when the lock ends before it is released. `reason` is a `MutexLostError`,
   * `MutexExpiredError`, `MutexClosedError` or, in an HTTP request, `ClientGoneError` (then the lock
   * is still held). It does not abort by a release.
   */
  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController()
      this.#watchLoss()
      if (this.#reason) this.#controller.abort(this.#reason)
    }
    // A stalled event loop has not run the timer yet that would have told.
    for (const place of this.#places) place.line.judge()
    return this.#controller.signal
  }

  #abort(reason: MutexError): void {
    this.#reason ??= reason
    this.#controller?.abort(this.#reason)
  }

  #watchLoss(): void {
    for (const place of this.#places) {
      place.onLost = (reason) => this.#lost(reason)
      if (place.ended) this.#lost(place.ended)
    }
  }

  #lost(reason: MutexError): void {
    this.#over?.(handled(Promise.reject(reason)))
    this.#abort(reason)
  }

  /**
   * Gives the lock back. The next waiter in this process has it before this returns, unless others are
   * due first: other processes, or everything else after 1.5 ms of hand-overs in one turn of the event loop.
   * With no waiter anywhere it goes back to the store: at once, or a turn of the event loop later if others
   * in this process have had it just before.
   *
   * It may be left unawaited: a rejection that nobody handles does not end the process, and the
   * lease ends the lock.
   *
   * @throws MutexUnlockError if it had expired, was overridden by another holder, or had been
   *   released already; the message says which
   * @throws MutexStoreError if the store could not be asked; the lease then ends the lock
   */
  release(): Promise<void> {
    if (this.#released) {
      return handled(Promise.reject(new MutexUnlockError('the lock has been released already')))
    }
    return this.#giveBack() ?? released
  }

  /** Its outcome, if the store has to be asked. */
  #giveBack(): Promise<void> | undefined {
    const releases = this.#places.map((place) => place.line.finish(place))
    this.#released = true
    if (!releases.every((release) => release === true)) {
      const outcomes = releases.map((release, i) => outcomeOf(release, this.#places[i] as Place))
      this.#release = outcomes.length === 1 ? outcomes[0] : handled(allOf(outcomes))
    }
    this.#over?.(this.#release ?? released)
    return this.#release
  }

  /**
   * Releases, unless that has happened. It can't know how the block ended, so it never throws, but
   * reports a failure as a process warning; `runExclusive` throws.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#released) return
    await this.release().catch((error) => process.emitWarning(error))
  }
}

function tokenOf(place: Place | undefined): string | null {
  const token = place?.token ?? null
  return token === null ? null : String(token)
}

/** What becomes of the release of one key: its error names that one. */
function outcomeOf(release: Promise<boolean> | boolean, { want, ended }: Place): Promise<void> {
  const { key } = want
  const kept: Promise<boolean> = Promise.resolve(release)
  const fail = (error: MutexError): never => {
    void handled(outcome)
    throw error
  }
  const outcome: Promise<void> = kept.then(
    (kept) => {
      if (kept) return
      const words = 'the lock is not ours any more: it expired, or somebody else has it'
      fail(new MutexUnlockError(ended?.message ?? words, ended ? { key, cause: ended } : { key }))
    },
    (error: MutexStoreError) => fail(about(key, error)),
  )
  return outcome
}

/** Rejects as the first of them that does, but only when all are known. */
async function allOf(outcomes: Promise<void>[]): Promise<void> {
  for (const outcome of await Promise.allSettled(outcomes)) {
    if (outcome.status === 'rejected') throw outcome.reason
  }
}

/** A promise whose rejection does no harm when nobody waits for it. */
function handled(promise: Promise<void>): Promise<void> {
  promise.catch(() => {})
  return promise
}

/** Aborts the signal of a lock, which stays held. */
export function abortSignal(lock: Lock, reason: MutexError): void {
  abort(lock, reason)
}

/** Releases a lock that has not been released; gives the outcome, if the store has to be asked. */
export function giveBack(lock: Lock): Promise<void> | undefined {
  return giveBackOf(lock)
}

/** The release of a lock that has been released, if the store had to be asked. */
export function releaseOf(lock: Lock): Promise<void> | undefined {
  return releaseBy(lock)
}

/** Tells `over` when the lock is released or lost, whatever comes first, and of what comes after. */
export function whenOver(lock: Lock, over: (end: Promise<void>) => void): void {
  tellOver(lock, over)
}

/** Is it held still: neither released nor lost, by the clock either? */
export function isHeld(lock: Lock): boolean {
  if (lock.key === null) return false
  return placesOf(lock).every((place) => {
    place.line.judge()
    return place.ended === undefined
  })
}

/** Lets the rest of the lease be the last of it. Returns what takes that back. */
export function stopRenewing(lock: Lock): () => void {
  const places = placesOf(lock)
  const untils = places.map((place) => place.line.stopRenewing(place))
  return () => {
    places.forEach((place, i) => {
      place.line.judge()
      place.line.limit(place, untils[i] ?? 0)
    })
  }
}
