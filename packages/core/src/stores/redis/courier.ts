import { now, timerUntil } from '../../clock.js'
import { MutexStoreError } from '../../errors.js'
import { Fifo } from '../../fifo.js'
import { asNobody } from '../../nobody.js'
import type { RedisClient } from './client.js'
import type { Script } from './scripts.js'
import { type Errand, isGivenUp, SOON, settled, Trip, untold } from './trip.js'
import type { Watch } from './watch.js'

/** The items of one call are done in one go: as many as keep Redis from others for no long time. */
export const MOST = 128

/** More than these go in two halves: Redis does the one while what the other has got is dealt with. */
const FEW = 50

/** What a node of a Cluster, or what stands before one, says of a call that it has not begun. */
const isAcrossSlots = (error: unknown): boolean =>
  error instanceof Error && error.message.startsWith('CROSSSLOT')

/** One key of many may be forbidden: then nothing of the call has been done. */
const isForbiddenKey = (error: unknown): boolean =>
  error instanceof Error && /^NOPERM.*\bkeys?\b/.test(error.message)

/** A server that wants nothing of this client. */
const isUnwelcome = (error: Error | undefined): error is Error =>
  error !== undefined && /^(NOAUTH|WRONGPASS|NOPERM)/.test(error.message)

/** How far apart looks at the clock are while calls go unanswered, in ms. */
const LOOK = 10

/** The scripts that a courier calls, and the keys of an item. */
export interface Freight<Verb extends string, Names> {
  /** In the order in which those of one moment are sent. */
  readonly scripts: Readonly<Record<Verb, Script>>
  /**
   * Adds an item's keys to those that the call has by now.
   * @param inSlots whether each item goes alone, since their slots may differ
   */
  pack(keys: string[], names: Names, inSlots: boolean): void
}

/**
 * Takes errands to Redis: those of one moment together, one script call for each verb, each with a
 * deadline of its own. While an answer is awaited, that moment is the rest of the turn of the event
 * loop, for all who may wait so long: there is much to do then, and what costs most is each write to
 * a socket. On a Cluster each goes alone, since their slots differ; a client that is none may lead to
 * one, which shows in its first refusal.
 */
export class Courier<Verb extends string, Names> {
  readonly #client: RedisClient
  readonly #watch: Watch
  readonly #freight: Freight<Verb, Names>
  readonly #verbs: readonly Verb[]
  #inSlots: boolean
  readonly #bags = {} as Record<Verb, Errand<Names>[]>
  #leaving: 'now' | 'after this turn' | undefined
  /** Those on their way, and those that were given up but may still land. */
  readonly #trips = new Fifo<Trip<Verb, Names>>()
  /** Those that are not sent before the server answers again. */
  readonly #kept = new Fifo<Trip<Verb, Names>>()
  #hangs = false
  #idle: (() => void)[] = []
  /** One timer for all, which is left to run when an answer comes: most do, and soon. */
  #timer: NodeJS.Timeout | undefined
  #next = Number.POSITIVE_INFINITY

  constructor(client: RedisClient, freight: Freight<Verb, Names>, watch: Watch) {
    this.#client = client
    this.#watch = watch
    this.#freight = freight
    this.#verbs = Object.keys(freight.scripts) as Verb[]
    for (const verb of this.#verbs) this.#bags[verb] = []
    this.#inSlots = client.isCluster ?? false
  }

  /** Has a call not been answered in time, and none since? It lands when the server goes on. */
  get hangs(): boolean {
    return this.#hangs
  }

  send(verb: Verb, errand: Errand<Names>): void {
    this.#bags[verb].push(errand)
    const gathers = this.#trips.size > 0 && !this.#inSlots && errand.mayWait
    const when = gathers ? 'after this turn' : 'now'
    if (this.#leaving === 'now' || this.#leaving === when) return
    this.#leaving = when
    if (when === 'now') void SOON.then(this.#leave)
    else setImmediate(this.#leave)
  }

  readonly #leave = (): void => {
    this.#leaving = undefined
    for (const verb of this.#verbs) {
      const bag = this.#bags[verb]
      if (bag.length === 0) continue
      this.#bags[verb] = []
      const most = this.#inSlots
        ? 1
        : Math.min(MOST, bag.length > FEW ? Math.ceil(bag.length / 2) : FEW)
      for (let from = 0; from < bag.length; from += most) {
        this.#start(verb, bag.length > most ? bag.slice(from, from + most) : bag)
      }
    }
  }

  #start(verb: Verb, errands: Errand<Names>[]): void {
    const trip = new Trip(verb, errands)
    const { trouble } = this.#watch
    if (isUnwelcome(trouble) && this.#client.status !== 'ready') {
      // It would be kept for the next attempt to connect, which may be seconds away.
      // In the next turn: who tries again without a pause would let nothing else happen.
      setImmediate(() => trip.fail(trouble))
      return
    }
    this.#expect(trip.due)
    // Before a server that hangs one call at a time is enough, and none if it is gone: more would only
    // pile up.
    const isEnough = this.#hangs && (this.#isTrying || this.#watch.lost)
    if (isEnough && this.#freight.scripts[verb].canWait) this.#kept.push(trip)
    else this.#begin(trip)
  }

  /** Is a call on its way that is still waited for? */
  get #isTrying(): boolean {
    for (const trip of this.#trips) if (trip.size > 0) return true
    return false
  }

  #begin(trip: Trip<Verb, Names>): void {
    this.#trips.push(trip)
    const inSlots = this.#inSlots
    const { verb, size } = trip
    const { scripts, pack } = this.#freight
    const keys: string[] = []
    for (const errand of trip.errands) if (errand) pack(keys, errand.names, inSlots)
    trip.begin(this.#client, scripts[verb], keys, (error) => {
      if (trip.forsaken) return
      this.#trips.remove(trip)
      this.#heard(!isGivenUp(error))
      if (!inSlots && isAcrossSlots(error)) {
        this.#inSlots = true
        for (const errand of trip.done()) if (errand) this.send(verb, errand)
      }
      if (size > 1 && isForbiddenKey(error)) {
        for (const errand of trip.done()) if (errand) this.#start(verb, [errand])
      }
      this.#tellIdle()
    })
  }

  #heard(isAnswered: boolean): void {
    if (!this.#hangs && isAnswered) return
    // The nodes of a Cluster answer each for itself.
    this.#hangs = !isAnswered && !this.#inSlots
    if (this.#hangs) return
    for (const trip of this.#kept) {
      this.#kept.remove(trip)
      this.#begin(trip)
    }
  }

  /** Looks at the clock no later than `at`. */
  #expect(at: number): void {
    if (at >= this.#next) return
    this.#next = at
    clearTimeout(this.#timer)
    // A turn of the event loop later, so that what came during a stall has been read.
    const look = () => setImmediate(() => this.#look())
    this.#timer = asNobody(() => setTimeout(look, timerUntil(at)))
    // What is on its way keeps the process alive by its connection.
    this.#timer.unref()
  }

  #look(): void {
    const at = now()
    this.#next = Number.POSITIVE_INFINITY
    let next = Number.POSITIVE_INFINITY
    for (const trip of this.#trips) {
      if (at >= trip.due) {
        trip.late(at, this.#trouble())
        this.#hangs = !this.#inSlots
      }
      next = Math.min(next, trip.due)
    }
    for (const trip of this.#kept) {
      if (at >= trip.due) trip.late(at, this.#trouble())
      if (trip.size === 0) this.#kept.remove(trip)
      next = Math.min(next, trip.due)
    }
    if (next < Number.POSITIVE_INFINITY) this.#expect(Math.max(next, at + LOOK))
    this.#tellIdle()
  }

  /** Why there is no answer, as far as the client knows. */
  #trouble(): string {
    const { status } = this.#client
    const { trouble } = this.#watch
    if (status === 'ready') return ''
    if (trouble) return `: ${trouble.message}`
    if (status === 'connect') return ': Redis is not ready for commands, as while it loads its data'
    return `: the client is in the state '${status}'`
  }

  /** What to say to one for whom nothing is sent. */
  outOfReach(): MutexStoreError {
    return new MutexStoreError(`the store is out of reach${this.#trouble()}`)
  }

  /** Begins to count on what it is told: the connection may have broken while nobody looked. */
  open(): void {
    this.broken()
    this.restored()
  }

  /** The connection has broken. What was sent before may land once there is one again, however late. */
  broken(): void {
    for (const trip of this.#trips) trip.resent = true
    if (this.#isForgetful) this.#forsake()
    this.#tellIdle()
  }

  /** There is a connection again. */
  restored(): void {
    this.#heard(true)
  }

  /** What the client keeps for the next connection is given up as well. */
  #forsake(): void {
    const how = this.#client.isCluster ? untold : settled
    for (const trip of this.#trips) {
      this.#trips.remove(trip)
      trip.forsaken = true
      trip.fail(new Error('the connection broke before the reply came'), how)
    }
  }

  /** Does the client say nothing of what was in flight when a connection breaks? */
  get #isForgetful(): boolean {
    const { isCluster, options } = this.#client
    if (!isCluster) return options?.autoResendUnfulfilledCommands === false
    // The nodes of a Cluster do say it, unless they connect again by themselves.
    const nodes = this.#client.nodes?.() ?? []
    return nodes.some(
      ({ options }) => options?.autoResendUnfulfilledCommands === false && options.retryStrategy,
    )
  }

  get #isIdle(): boolean {
    return this.#trips.size === 0 && this.#kept.size === 0
  }

  #tellIdle(): void {
    if (this.#idle.length === 0 || !this.#isIdle) return
    for (const resolve of this.#idle.splice(0)) resolve()
  }

  /** Resolves when nothing is on its way any more, not even what was given up. */
  async idle(): Promise<void> {
    while (this.#leaving || !this.#isIdle) {
      await new Promise<void>((resolve) => {
        if (this.#isIdle) setImmediate(resolve)
        else this.#idle.push(resolve)
      })
    }
  }
}
