import { drift, now } from './clock.js'
import type { Core } from './core.js'
import {
  about,
  BlockTimeExceedError,
  type MutexError,
  MutexExpiredError,
  MutexLockError,
  MutexLostError,
  MutexQueueFullError,
  MutexStoreError,
} from './errors.js'
import type { Leased } from './keeper.js'
import { SLICE } from './pace.js'
import type { Place } from './place.js'
import { type Asker, endOf, lasts, type Tenure } from './stores/store.js'
import { Waiting } from './waiting.js'

/** How long the store's word that nobody else waits is good for, if others would not be heard of. */
const WORD = 50

/** How much of a lease the next holder must have left: its renewal takes a while. */
const SPARE = 100

/**
 * One key in this process: who waits for it, and whose turn it is.
 *
 * Either nothing is `held`, and `asked` is what the store has been asked for on behalf of the first
 * of those who wait; or `held` is this process's tenure, and `holder` has it. (Now and then there is
 * neither `asked` nor `holder` for a turn of the event loop: after the first has left, in a pause
 * between two holders, or while the tenure lingers.) When the holder is done, the tenure passes to the
 * next in line without a command, or goes back to the store in the same command that asks for the next.
 *
 * Where it has been passed on before, it lingers when nobody is next: whoever comes before the sockets
 * have been read once more finds it here. Else a server that is busy with one user would take and give
 * back a lock for every few requests.
 */
export class Line implements Asker, Leased {
  readonly #waiting = new Waiting()
  /** Asked of the store for the first in line; ends when that one leaves. */
  #asked: Tenure | undefined
  /** Has the store told those who wait now that they have to? */
  #answered = false
  held: Tenure | undefined
  /** In the keeper's list. */
  kept = false
  before: Leased | undefined
  after: Leased | undefined
  holder: Place | undefined
  /** The tenure that has been passed on here. */
  #shared: Tenure | undefined
  /** While it lingers: tells the last holder what becomes of the lock. */
  #lingering: ((release: Promise<boolean> | boolean) => void) | undefined

  constructor(
    readonly core: Core,
    readonly name: string,
  ) {}

  /** Those who wait, first first. */
  get waiting(): Iterable<Place> {
    return this.#waiting
  }

  join(place: Place): void {
    const taken = this.held !== undefined || this.#waiting.size > 0
    const { key, policy } = place.want
    const { held } = this
    const lingers = held !== undefined && this.#lingering !== undefined
    if (taken && !lingers && !policy.blocking) {
      place.refuse(new MutexLockError('the key is held or waited for', { key }))
      return
    }
    // The first in line does not wait before the store has said that it has to.
    const trying = this.#asked && !this.#answered ? 1 : 0
    if (this.#waiting.size - trying >= policy.maxWaiting) {
      place.refuse(
        new MutexQueueFullError(
          `maxWaiting (${policy.maxWaiting}) callers wait for the key in this process already`,
          { key },
        ),
      )
      return
    }
    this.#waiting.push(place)
    if (lingers) unheard(this.#advance(held, now()))
    else if (taken) this.core.store.listen()
    else this.#ask()
    if (place.state !== 'new') return
    place.wait()
    // The first is timed by the store until that tells it to wait: most need no timer of their own.
    if (taken || place.want.blockTime < policy.storeTimeout) this.#waiting.time(place)
  }

  /** A waiting place gives up. */
  leave(place: Place, reason: unknown): void {
    if (place.state !== 'waiting') return
    const asked = this.#waiting.first === place ? this.#asked : undefined
    this.#waiting.remove(place)
    place.refuse(reason)
    if (this.held && !this.holder && !this.#waiting.first) unheard(this.#giveBack(this.held))
    if (!asked) return
    // What was asked for carries the age and patience of the one who left.
    this.#asked = undefined
    this.core.store.cancel(asked)
    if (!this.#waiting.first) this.core.lines.delete(this.name)
    // A turn later: when many leave together, each would be asked for, only to leave as well.
    else {
      setImmediate(() => {
        if (!this.#asked && !this.held) this.#ask(this.#answered)
      })
    }
  }

  /** What to tell a place whose `blockTime` is over. */
  timeUp(place: Place): MutexError {
    const { key, policy, blockTime } = place.want
    const trouble = this.#asked?.trouble
    if (trouble) return about(key, trouble)
    // Of several keys, the earlier ones may have left no time for an answer.
    if (this.#asked && !this.#answered && blockTime === policy.blockTime) {
      return new MutexStoreError(`the store did not answer within blockTime (${blockTime} ms)`, {
        key,
      })
    }
    const by = this.held
      ? `; this process itself has held it for ${Math.round(now() - this.held.since)} ms`
      : ''
    return new BlockTimeExceedError(
      `the lock did not come within blockTime (${policy.blockTime} ms)${by}`,
      { key },
    )
  }

  /** @param answered whether the store has told those who wait now that they have to */
  #ask(answered = false): void {
    const tenure = this.#beginAsking(answered)
    if (tenure) this.core.store.acquire(tenure)
    else if (!this.held && this.core.lines.get(this.name) === this) {
      this.core.lines.delete(this.name)
    }
  }

  /** From now on the store is asked for this tenure, on behalf of the first in line. */
  #beginAsking(answered: boolean): Tenure | undefined {
    const first = this.#waiting.first
    if (!first) return undefined
    const { policy, blockTime } = first.want
    const wish = { name: this.name, since: first.since, blockTime, policy }
    this.#asked = this.core.store.tenure(this, wish)
    this.#answered = answered
    return this.#asked
  }

  queued(_tenure: Tenure): void {
    this.#answered = true
    const { first } = this.#waiting
    if (first) this.#waiting.time(first)
  }

  granted(tenure: Tenure): void {
    this.#asked = undefined
    this.held = tenure
    tenure.since = now()
    const next = this.#next
    // Held since the store was asked, as the lease is: one that lasts for the hold needs no renewal.
    if (next) this.#deliver(tenure, next, tenure.since, tenure.heard)
    else unheard(this.#giveBack(tenure))
  }

  refused(_tenure: Tenure): void {
    this.#asked = undefined
    const place = this.#waiting.shift()
    place?.refuse(new MutexLockError('the key is held or waited for', { key: place.want.key }))
    this.#ask(true)
  }

  failed(_tenure: Tenure, cause: MutexStoreError, asked: number): void {
    this.#asked = undefined
    const { first } = this.#waiting
    for (const place of this.#waiting) {
      if (place.since > asked && place !== first) continue
      this.#waiting.remove(place)
      place.refuse(about(place.want.key, cause))
    }
    this.#ask()
  }

  /** The tenure goes to the next in line, whose `expiry` counts from `since`. */
  #deliver(tenure: Tenure, place: Place, at: number, since: number = at): void {
    this.#waiting.remove(place)
    const { lease, storeTimeout } = place.want.policy
    tenure.lease = lease
    tenure.storeTimeout = storeTimeout
    tenure.patience = Math.min(storeTimeout, lease / 4)
    tenure.until = since + place.want.expiry
    this.holder = place
    this.core.keeper.keep(this, at)
    place.hold(tenure.owner, tenure.token, at)
  }

  /** The next in line. An abort tells one by one: who releases when told may come before who waits. */
  get #next(): Place | undefined {
    for (;;) {
      const { first } = this.#waiting
      const signal = first?.want.signal
      if (!first || !(signal instanceof AbortSignal && signal.aborted)) return first
      this.#waiting.shift()
      first.refuse(signal.reason)
    }
  }

  /**
   * The holder is done.
   * @returns whether the lock was ours to the end, by promise if the store has to say so
   */
  finish(place: Place): Promise<boolean> | boolean {
    const at = now()
    this.judge(at)
    const tenure = this.held
    if (place !== this.holder || !tenure) return false
    this.holder = undefined
    const release = this.#mayLinger(tenure, at) ? this.#linger() : this.#advance(tenure, at)
    place.free(release)
    return release
  }

  /** Others elsewhere don't wait for it, and here somebody is likely to come. */
  #mayLinger(tenure: Tenure, at: number): boolean {
    if (tenure !== this.#shared || tenure.contended || this.#next) return false
    return lastsOn(tenure, tenure.lease, at) && this.#hears(tenure, at)
  }

  #linger(): Promise<boolean> {
    return new Promise((resolve) => {
      this.#lingering = resolve
      const over = () => {
        if (this.held && this.#lingering === resolve) unheard(this.#advance(this.held, now()))
      }
      // The sockets are read between the two.
      setImmediate(() => setImmediate(over))
    })
  }

  /** Ends what the clock says is over: after a stall nobody else may have looked yet. */
  judge(at: number = now()): void {
    if (this.held && at >= endOf(this.held)) this.end(at)
  }

  /** The present holder may hold until `until` (this process's clock) and no longer. */
  limit(place: Place, until: number): void {
    if (place !== this.holder || !this.held) return
    place.unrenewed = false
    this.held.until = until
    this.core.keeper.keep(this, now())
  }

  /**
   * No renewal any more for this holder: the rest of the lease is its last.
   * @returns until when it could have held
   */
  stopRenewing(place: Place): number {
    if (place !== this.holder || !this.held) return 0
    const { until, deadline, lease } = this.held
    const last = Math.min(deadline, now() + lease)
    this.limit(place, Math.min(until, last))
    place.unrenewed = last + drift(lease) < until
    return until
  }

  /** Nobody holds the tenure: who is next? */
  #advance(tenure: Tenure, at: number): Promise<boolean> | boolean {
    const tell = this.#lingering
    this.#lingering = undefined
    const release = this.#passOn(tenure, at) || this.#giveBack(tenure)
    tell?.(release)
    return release
  }

  /** Gives whether somebody here has it now, or is about to. */
  #passOn(tenure: Tenure, at: number): boolean {
    const next = this.#next
    if (!next || !this.#mayPassOn(tenure, next, at)) return false
    const spare = tenure.token === null || tenure.token < tenure.lastToken(at)
    if (!spare || this.core.pace.spent(at)) {
      setImmediate(() => {
        if (this.held === tenure && !this.holder) unheard(this.#advance(tenure, now()))
      })
      return true
    }
    if (tenure.token !== null) tenure.token++
    // Who is older elsewhere is to be heard of.
    if (tenure.contended) this.core.store.listen()
    // In memory nothing lasts for less than ever, and giving it back costs nothing.
    if (tenure.deadline < Number.POSITIVE_INFINITY) this.#shared = tenure
    this.#deliver(tenure, next, at)
    return true
  }

  /** Others get it after a slice, but for those here who have waited for longer than all of them. */
  #mayPassOn(tenure: Tenure, next: Place, at: number): boolean {
    if (!lastsOn(tenure, Math.max(tenure.lease, next.want.policy.lease), at)) return false
    if (tenure.contended) {
      if (at - tenure.since < SLICE) return true
      if (next.since >= tenure.othersSince) return false
    }
    return this.#hears(tenure, at)
  }

  /** Would this process know if others waited for it? */
  #hears(tenure: Tenure, at: number): boolean {
    return tenure.heard >= this.core.store.listeningSince || at - tenure.heard < WORD
  }

  #giveBack(tenure: Tenure): Promise<boolean> {
    this.held = undefined
    this.core.keeper.forget(this)
    const next = this.#beginAsking(true)
    // They may have come long ago: is this process told still?
    if (next) this.core.store.listen()
    else this.core.lines.delete(this.name)
    return this.core.store.release(tenure, next)
  }

  /** The holder's time is over, or the lease is. */
  end(at: number): void {
    const tenure = this.held
    if (!tenure) return
    const { holder } = this
    const reason = holder && overdue(holder, tenure, at)
    this.holder = undefined
    const release = this.#advance(tenure, at)
    unheard(release)
    // Told in the same turn of the event loop, so before the next holder runs.
    if (reason) holder.lose(reason, release)
  }

  /** The store: the lock is not ours any more. */
  lose(tenure: Tenure): void {
    if (this.held !== tenure) return
    const { holder } = this
    this.held = undefined
    this.holder = undefined
    this.core.keeper.forget(this)
    this.#lingering?.(false)
    this.#lingering = undefined
    this.#ask(true)
    // Last, since it runs the holder's own listeners, and they may come back for the key.
    const { key } = holder?.want ?? {}
    holder?.lose(new MutexLostError('the lock is not ours any more in the store', { key }), false)
  }

  /** The holder's mutex takes its lock away. */
  revoke(place: Place, reason: MutexError): Promise<boolean> | boolean {
    if (place !== this.holder || !this.held) return true
    this.holder = undefined
    const release = this.#advance(this.held, now())
    place.lose(reason, release)
    return release
  }
}

/** Is there enough of the lease left for one more holder? */
function lastsOn(tenure: Tenure, lease: number, at: number): boolean {
  return at < tenure.deadline - Math.min(SPARE, lease / 8)
}

/** Why the holder's time is over. A lease that reaches to the end of a hold ends a little sooner. */
function overdue({ want, unrenewed }: Place, tenure: Tenure, at: number): MutexError {
  const { key, policy } = want
  if (at < tenure.until && !lasts(tenure)) {
    return new MutexLostError('the lease could not be renewed in time', { key })
  }
  return new MutexExpiredError(
    unrenewed
      ? 'the lock was not renewed any more, and its lease is over'
      : `the lock has been held for its whole expiry (${policy.expiry} ms)`,
    { key },
  )
}

/** Nobody waits for this release: what it meets shows in the next command, or the lease ends it. */
function unheard(release: Promise<boolean> | boolean): void {
  if (typeof release !== 'boolean') release.catch(() => {})
}
