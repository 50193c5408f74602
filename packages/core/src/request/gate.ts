import { MutexError, MutexStoreError } from '../errors.js'
import type { Lock } from '../lock.js'
import { acquireFor, type Mutex } from '../mutex.js'
import { defined, resolveOptions, shown } from '../options.js'
import { isThenable } from '../thenable.js'
import type { Exchange } from './exchange.js'
import { Hold, type HoldTerms } from './hold.js'
import { checkedKeys, type KeyFrom } from './key.js'
import {
  assertLockOptions,
  type LockOptions,
  lockOptionNames,
  mutexOf,
  mutexOptionsOf,
  type RequestLockOptions,
  requestLockOptionNames,
} from './options.js'
import { Refusal } from './refusal.js'
import { report } from './report.js'

/** Nobody is there any more to run a handler for. */
export const GONE: unique symbol = Symbol('gone')

/**
 * What becomes of a request: it holds a lock, it goes on without one (`null`; `undefined` if it names
 * nothing to lock), it is refused, or its client has left.
 */
export type Verdict = Lock | null | undefined | Refusal | typeof GONE

/** The keys that a request names: `undefined` for none, `null` if it was not asked. */
type Named = string | readonly string[] | null | undefined

const LOCKED_METHODS: readonly string[] = ['POST', 'PUT', 'PATCH', 'DELETE']

/** Where requests wait for their lock, on the terms of one adapter or of one of its routes. */
export class Gate<Req, OnBusy> {
  readonly onBusy: OnBusy | undefined
  readonly serverTiming: boolean
  /** How long a lock outlives its process, in ms. */
  readonly lease: number
  readonly #keyFrom: KeyFrom<Req> | undefined
  readonly #methods: ReadonlySet<string>
  readonly #skip: LockOptions<Req, OnBusy>['skip']
  readonly #passing: boolean
  readonly #terms: HoldTerms
  readonly #busyStatus: number
  readonly #retryAfter: number

  private constructor(
    readonly mutex: Mutex,
    readonly options: LockOptions<Req, OnBusy>,
  ) {
    const { blocking, delay, lease } = resolveOptions(mutex.options)
    this.lease = lease
    this.onBusy = options.onBusy
    this.serverTiming = options.serverTiming ?? false
    this.#keyFrom = options.keyFrom
    this.#methods = new Set(
      (options.methods ?? LOCKED_METHODS).map((method) => method.toUpperCase()),
    )
    this.#skip = options.skip
    this.#passing = options.onStoreError === 'pass'
    this.#terms = {
      onClientAbort: options.onClientAbort ?? 'keep',
      awaitRelease: options.awaitRelease ?? !blocking,
    }
    this.#busyStatus = options.statusCode ?? 409
    this.#retryAfter = delay
  }

  /**
   * The gate of an adapter.
   * @param more the names of options that the adapter sees to itself
   * @throws TypeError, RangeError for wrong options: each names the option, the value and the rule
   */
  static of<Req, OnBusy>(
    options: RequestLockOptions<Req, OnBusy>,
    more: readonly string[] = [],
  ): Gate<Req, OnBusy> {
    assertLockOptions(options, [...requestLockOptionNames, ...more])
    return new Gate(mutexOf(options), options)
  }

  /**
   * The same with other options for one route: the same mutex, closed together.
   * @throws TypeError, RangeError for wrong options
   */
  with(options: LockOptions<Req, OnBusy>, what: string): Gate<Req, OnBusy> {
    assertLockOptions(options, lockOptionNames, what)
    const mutex = this.mutex.with(mutexOptionsOf(options))
    return new Gate(mutex, { ...this.options, ...defined(options) })
  }

  /** @throws TypeError if there is no way to tell what to lock */
  assertKeyFrom(): void {
    if (!this.#keyFrom) {
      throw new TypeError(`keyFrom is required: a function of the request, got ${shown(undefined)}`)
    }
  }

  /** Is a request of this method locked where nobody has asked for it? */
  covers(method: string | undefined): boolean {
    return this.#keyFrom !== undefined && method !== undefined && this.#methods.has(method)
  }

  /**
   * Waits for the lock of a request, or knows at once what becomes of it. The exchange has been
   * watched since before the first await, so that a client that leaves is never missed.
   *
   * Most requests come by here, so that it makes few promises: following a request through them
   * (`AsyncLocalStorage`) costs with each before Node.js 24.
   *
   * @throws what `keyFrom` and `skip` throw, and a TypeError for keys that are none: for the
   *   framework, as any error in the app; rejects with it, too
   */
  admit(request: Req, exchange: Exchange): Promise<Verdict> | Verdict {
    const keys = this.#keysOf(request)
    if (!isThenable(keys)) return this.#take(keys, exchange)
    return keys.then((keys) => this.#take(keys, exchange))
  }

  #keysOf(request: Req): Promise<Named> | Named {
    try {
      const skip = this.#skip?.(request)
      if (isThenable(skip)) return this.#keysLater(request, skip)
      if (skip) return null
      const named = this.#keyFrom?.(request)
      return isThenable(named) ? this.#keysLater(request, false, named) : checkedKeys(named)
    } catch (error) {
      throw errorOf(error)
    }
  }

  async #keysLater(
    request: Req,
    skip: boolean | PromiseLike<boolean>,
    named?: PromiseLike<unknown>,
  ): Promise<Named> {
    try {
      if (await skip) return null
      return checkedKeys(await (named ?? this.#keyFrom?.(request)))
    } catch (error) {
      throw errorOf(error)
    }
  }

  #take(keys: Named, exchange: Exchange): Promise<Verdict> | Verdict {
    if (keys === null || keys === undefined) return keys
    const lacking = exchange.holds.lacking(this.mutex.store, keys)
    if (lacking === null) return null
    if (exchange.over) return GONE
    return acquireFor(this.mutex, lacking, exchange).then(
      (lock) => this.#granted(lock, exchange),
      (error) => this.#refused(error, exchange),
    )
  }

  #granted(lock: Lock, exchange: Exchange): Verdict {
    const hold = new Hold(lock, this.mutex.store, this.#terms)
    if (exchange.over) {
      void hold.release()
      return GONE
    }
    exchange.holds.add(hold)
    return lock
  }

  #refused(error: unknown, exchange: Exchange): Verdict {
    if (exchange.over) return GONE
    if (error instanceof MutexStoreError && this.#passing) {
      report('A request goes on without its lock', error)
      return null
    }
    if (error instanceof MutexError) {
      return new Refusal(error, this.#busyStatus, this.#retryAfter)
    }
    throw error
  }
}

/** Frameworks take `undefined` for no error, and some strings for commands. */
function errorOf(thrown: unknown): Error {
  if (thrown instanceof Error) return thrown
  return new Error('keyFrom or skip has thrown what is no error', { cause: thrown })
}
