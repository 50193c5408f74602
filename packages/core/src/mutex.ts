import type { Caller } from './aborts.js'
import { LONGEST_TIMER, now } from './clock.js'
import { Core } from './core.js'
import { MutexClosedError, MutexLockError, MutexReentryError } from './errors.js'
import { Lock } from './lock.js'
import { Member, type MutexStats } from './member.js'
import {
  assertOptions,
  defined,
  type MutexOptions,
  mutexOptionNames,
  type Policy,
  resolveOptions,
  shown,
} from './options.js'
import { Place, type Want } from './place.js'
import { holdsItself } from './reentry.js'
import type { Store } from './stores/store.js'
import { isTraced, traced } from './tracing.js'

/** What one acquisition may set for itself. */
export interface AcquireOptions extends Pick<MutexOptions, 'blocking' | 'blockTime'> {
  /** Gives up waiting when it aborts; the acquisition rejects with its `reason`. */
  signal?: AbortSignal | undefined
}

let acquire: (mutex: Mutex, key: string | readonly string[], caller: Caller) => Promise<Lock>

const acquireOptionNames = ['blocking', 'blockTime', 'signal'] as const

/**
 * A mutex over any store.
 *
 * All mutexes over one store exclude each other in this process without asking the store; the store
 * sees to the order between processes.
 *
 * @example
 * const mutex = new Mutex(memoryStore())
 * await mutex.runExclusive('user:42', async () => { … })
 */
export class Mutex implements AsyncDisposable {
  /** Where the locks are. */
  readonly store: Store
  /** The options as they were set, without defaults. */
  readonly options: Readonly<MutexOptions>
  readonly #core: Core
  readonly #member: Member
  readonly #policy: Policy

  static {
    acquire = (mutex, key, caller) => mutex.#acquire(key, mutex.#policy, caller)
  }

  /**
   * @throws TypeError for a wrong store, a wrong type or an unknown option
   * @throws RangeError for a wrong value, or values in a wrong order
   * @param member internal: what `with` passes on, and adapters bring along
   */
  constructor(store: Store, options: MutexOptions = {}, member?: Member) {
    if (typeof store?.acquire !== 'function' || typeof store.nameOf !== 'function') {
      throw new TypeError(`store must be a store such as memoryStore(), got ${shown(store)}`)
    }
    this.#policy = resolveOptions(options)
    this.options = defined(options)
    this.store = store
    this.#core = Core.of(store)
    this.#member = member ?? new Member()
    if (!this.#member.closed) this.#core.join(this.#member)
  }

  /**
   * Waits for the lock on one key, or on several at once.
   *
   * Several keys are locked in an order that is the same everywhere, so that two who want the same
   * keys never wait for each other; one `blockTime` counts for all, and either all are held or none.
   * When one of them is lost, the signal of the whole lock aborts.
   *
   * @throws MutexLockError if it is taken and `blocking` is false
   * @throws BlockTimeExceedError if it did not come within `blockTime`
   * @throws MutexQueueFullError if `maxWaiting` wait for it in this process already
   * @throws MutexStoreError if the store can't be asked
   * @throws MutexReentryError, if a request that holds one of the keys by `requestLock` asks for it
   * @throws MutexClosedError if the mutex is closed
   * @throws MutexLostError, MutexExpiredError if one of several keys is lost before the last has come
   * @throws TypeError, RangeError for wrong keys or options; the signal's reason when it aborts
   */
  acquireLock(key: string | readonly string[], options?: AcquireOptions): Promise<Lock> {
    try {
      const policy = options === undefined ? this.#policy : this.#policyFor(options)
      return this.#acquire(key, policy, options?.signal)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /**
   * The lock, or `null` at once if anybody holds the key, waits for it or is trying to get it.
   *
   * @throws MutexStoreError if the store can't be asked, MutexClosedError if the mutex is closed,
   *   TypeError for a wrong key
   */
  async tryAcquire(key: string | readonly string[]): Promise<Lock | null> {
    try {
      return await this.#acquire(key, { ...this.#policy, blocking: false }, undefined)
    } catch (error) {
      if (error instanceof MutexLockError) return null
      throw error
    }
  }

  /**
   * Runs `body` under the lock, and gives what it gives.
   *
   * @throws what `body` throws; else MutexUnlockError if the lock was lost meanwhile, since then
   *   somebody else may have been at work at the same time; and all that `acquireLock` throws
   */
  async runExclusive<T>(
    key: string | readonly string[],
    body: (lock: Lock) => T | PromiseLike<T>,
    options?: AcquireOptions,
  ): Promise<T> {
    if (typeof body !== 'function') {
      throw new TypeError(`body must be a function, got ${shown(body)}`)
    }
    const lock = await this.acquireLock(key, options)
    let result: T
    try {
      result = await body(lock)
    } catch (error) {
      if (lock.key !== null) await lock.release().catch(() => {})
      throw error
    }
    if (lock.key !== null) await lock.release()
    return result
  }

  /**
   * The same mutex with other options for some of its callers: the same store and counters, closed
   * together.
   * @throws TypeError, RangeError as the constructor does
   */
  with(options: MutexOptions): Mutex {
    assertOptions(options, mutexOptionNames)
    return new Mutex(this.store, { ...this.options, ...defined(options) }, this.#member)
  }

  /** What it has going on, and has done so far. */
  stats(): MutexStats {
    return this.#member.stats()
  }

  /**
   * Refuses new work and fails the waiters with `MutexClosedError`, but leaves what is held to its
   * holders. Resolves when the last of them is done.
   */
  async drain(): Promise<void> {
    this.#member.closed = true
    for (const line of [...this.#core.lines.values()]) {
      // Last first: the store is asked anew each time that the first one leaves.
      for (const place of [...line.waiting].reverse()) {
        if (place.want.member === this.#member) line.leave(place, closed(place.want.key))
      }
    }
    // Those who hold may have nothing but timers that do not keep the process alive.
    const alive = setInterval(() => {}, LONGEST_TIMER)
    await this.#member.idle()
    clearInterval(alive)
  }

  /**
   * Refuses new work, fails the waiters with `MutexClosedError`, aborts the signals of what is held
   * and gives it back. Of connections it closes only those that it opened itself.
   */
  async close(): Promise<void> {
    const drained = this.drain()
    for (const line of [...this.#core.lines.values()]) {
      const { holder } = line
      if (holder?.want.member === this.#member) line.revoke(holder, closed(holder.want.key))
    }
    await drained
    await this.#core.leave(this.#member)
  }

  /** The same as `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #policyFor(options: AcquireOptions): Policy {
    assertOptions(options, acquireOptionNames)
    const { signal, blocking, blockTime } = options
    if (signal !== undefined && !(signal instanceof AbortSignal)) {
      throw new TypeError(`signal must be an AbortSignal, got ${shown(signal)}`)
    }
    if (blocking === undefined && blockTime === undefined) return this.#policy
    return resolveOptions({ ...this.options, ...defined({ blocking, blockTime }) })
  }

  #acquire(
    key: string | readonly string[],
    policy: Policy,
    signal: AbortSignal | Caller | undefined,
  ): Promise<Lock> {
    if (!isTraced()) return this.#get(key, policy, signal)
    return traced(this, key, policy.blocking, () => this.#get(key, policy, signal))
  }

  #get(
    key: string | readonly string[],
    policy: Policy,
    signal: AbortSignal | Caller | undefined,
  ): Promise<Lock> {
    if (typeof key !== 'string') return this.#acquireAll(key, policy, signal)
    const name = nameOf(this.store, key)
    this.#refuseReentry(key, name, policy, signal)
    const { blockTime, expiry } = policy
    const member = this.#member
    return new Promise((resolve, refused) => {
      const granted = (place: Place) => resolve(new Lock([place], place.waited))
      this.#take(name, { key, policy, member, blockTime, expiry, signal, granted, refused })
    })
  }

  async #acquireAll(
    keys: readonly string[],
    policy: Policy,
    signal: AbortSignal | Caller | undefined,
  ): Promise<Lock> {
    assertSeveral(keys)
    const member = this.#member
    const began = now()
    // Names, not keys, decide what is the same lock and who comes first.
    const byName = new Map<string, string>()
    for (const key of keys) {
      const name = nameOf(this.store, key)
      if (!byName.has(name)) byName.set(name, key)
    }
    for (const [name, key] of byName) this.#refuseReentry(key, name, policy, signal)
    const held = new Map<string, Place>()
    try {
      for (const name of [...byName.keys()].sort()) {
        const key = byName.get(name) as string
        const spent = held.size === 0 ? 0 : now() - began
        const rest = Math.max(1, policy.blockTime - spent)
        const place = await new Promise<Place>((granted, refused) => {
          const expiry = Number.POSITIVE_INFINITY
          this.#take(name, {
            key,
            policy,
            member,
            blockTime: rest,
            expiry,
            signal,
            granted,
            refused,
          })
        })
        held.set(name, place)
      }
      const until = now() + policy.expiry
      for (const place of held.values()) {
        place.line.judge()
        if (place.ended) throw place.ended
        place.line.limit(place, until)
      }
    } catch (error) {
      for (const place of held.values()) {
        const release = place.line.finish(place)
        if (typeof release !== 'boolean') release.catch(() => {})
      }
      throw error
    }
    const places = [...byName.keys()].map((name) => held.get(name) as Place)
    return new Lock(places, now() - began)
  }

  /** Who holds a lock and waits for it waits for itself, if it can be told that it is the same. */
  #refuseReentry(
    key: string,
    name: string,
    { blocking }: Policy,
    signal: AbortSignal | Caller | undefined,
  ): void {
    if (signal !== undefined && !(signal instanceof AbortSignal)) return
    if (!blocking || !holdsItself(this.store, name)) return
    this.#member.refused++
    throw new MutexReentryError(
      'this request holds the lock already: asking for it again, it would wait for itself',
      { key },
    )
  }

  #take(name: string, want: Want): void {
    if (want.member.closed) throw closed(want.key)
    want.signal?.throwIfAborted()
    const line = this.#core.line(name)
    line.join(new Place(line, want))
  }
}

function nameOf(store: Store, key: unknown): string {
  if (typeof key !== 'string' || key === '' || !key.isWellFormed()) {
    throw new TypeError(`key must be a non-empty, well-formed string, got ${kindOf(key)}`)
  }
  return store.nameOf(key)
}

function assertSeveral(keys: unknown): asserts keys is readonly unknown[] {
  if (Array.isArray(keys) && keys.length > 0) return
  throw new TypeError(`key must be a string or a non-empty array of strings, got ${kindOf(keys)}`)
}

/** @throws TypeError for what can't be locked there */
export function assertKey(store: Store, key: string | readonly string[]): void {
  if (typeof key !== 'string') assertSeveral(key)
  for (const one of typeof key === 'string' ? [key] : key) nameOf(store, one)
}

/** Keys come from requests: a message tells what was wrong with one, but never shows it. */
function kindOf(key: unknown): string {
  if (key === undefined || typeof key === 'object' || typeof key === 'function') return shown(key)
  if (typeof key !== 'string') return `a ${typeof key}`
  return key === '' ? 'an empty string' : 'a string with a lone surrogate'
}

const closed = (key: string): MutexClosedError =>
  new MutexClosedError('the mutex has been closed', { key })

/** As `acquireLock`, for one who can be told more cheaply than by a signal; throws at once as well. */
export function acquireFor(
  mutex: Mutex,
  key: string | readonly string[],
  caller: Caller,
): Promise<Lock> {
  return acquire(mutex, key, caller)
}
