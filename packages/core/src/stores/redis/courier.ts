import { now } from '../../clock.js'
import { MutexStoreError } from '../../errors.js'
import type { RedisClient } from './client.js'
import type { Names } from './names.js'
import { run, type Verb } from './scripts.js'

/** The items of one call are done in one go: as many as keep Redis from others for no long time. */
const MOST = 128

/** What a script gives for one item. */
export type Reply = readonly (number | string)[]

/** One item of a call. Exactly one of `answered` and `failed` is called, once. */
export interface Errand {
  readonly names: Names
  readonly args: readonly string[]
  /** How long an answer may take, in ms. */
  readonly timeout: number
  answered(reply: Reply): void
  /** `settled` resolves once the client has done with the command: until then it may still land. */
  failed(error: MutexStoreError, settled: Promise<void>): void
}

/** In this order: what makes room goes first. */
const verbs: readonly Verb[] = ['release', 'cancel', 'renew', 'acquire']

/**
 * Takes errands to Redis: those of one moment together, one script call for each verb, each with a
 * deadline of its own. On a Cluster each goes alone, since their slots differ.
 */
export class Courier {
  readonly #client: RedisClient
  readonly #most: number
  readonly #bags: Record<Verb, Errand[]> = { acquire: [], release: [], renew: [], cancel: [] }
  #leaving = false
  readonly #trips = new Set<Promise<void>>()

  constructor(client: RedisClient) {
    this.#client = client
    this.#most = client.isCluster ? 1 : MOST
  }

  send(verb: Verb, errand: Errand): void {
    this.#bags[verb].push(errand)
    if (this.#leaving) return
    this.#leaving = true
    queueMicrotask(() => this.#leave())
  }

  #leave(): void {
    this.#leaving = false
    for (const verb of verbs) {
      if (this.#bags[verb].length === 0) continue
      const bag = this.#bags[verb]
      this.#bags[verb] = []
      for (let from = 0; from < bag.length; from += this.#most) {
        const errands = bag.length > this.#most ? bag.slice(from, from + this.#most) : bag
        const { settled } = new Trip(this.#client, verb, errands)
        this.#trips.add(settled)
        void settled.finally(() => this.#trips.delete(settled))
      }
    }
  }

  /** Resolves when nothing is on its way any more, not even what was given up. */
  async idle(): Promise<void> {
    while (this.#leaving || this.#trips.size > 0) await Promise.all(this.#trips)
  }
}

/** One call on its way. */
class Trip {
  readonly #errands: (Errand | undefined)[]
  readonly #began = now()
  /** Resolves when the client has done with the call. */
  readonly settled: Promise<void>
  #timer: NodeJS.Timeout | undefined

  constructor(client: RedisClient, verb: Verb, errands: readonly Errand[]) {
    this.#errands = [...errands]
    const keys: string[] = []
    const args: string[] = []
    let patience = Number.POSITIVE_INFINITY
    for (const errand of errands) {
      keys.push(...errand.names)
      args.push(...errand.args)
      patience = Math.min(patience, errand.timeout)
    }
    this.settled = run(client, verb, keys, args).then(
      (replies) => this.#arrived(replies),
      (error) => this.#failed(error),
    )
    this.#timer = setTimeout(look, patience, this)
  }

  #arrived(replies: unknown): void {
    for (const [index, errand] of this.#done().entries()) {
      if (!errand) continue
      const reply = Array.isArray(replies) ? replies[index] : undefined
      if (!Array.isArray(reply)) {
        errand.failed(
          new MutexStoreError('the store gave an answer that makes no sense'),
          this.settled,
        )
      } else if (Number(reply[0]) === -2) {
        errand.failed(refusal(new Error(String(reply[1]))), this.settled)
      } else {
        errand.answered(reply)
      }
    }
  }

  #failed(cause: unknown): void {
    for (const errand of this.#done()) errand?.failed(refusal(cause), this.settled)
  }

  /** Nothing can be late any more. */
  #done(): (Errand | undefined)[] {
    clearTimeout(this.#timer)
    return this.#errands.splice(0)
  }

  /** The time of some is over; a turn of the event loop ago, so what had arrived has been read. */
  late(): void {
    const waited = now() - this.#began
    let patience = Number.POSITIVE_INFINITY
    for (const [index, errand] of this.#errands.entries()) {
      if (!errand) continue
      if (waited < errand.timeout) {
        patience = Math.min(patience, errand.timeout - waited)
        continue
      }
      this.#errands[index] = undefined
      errand.failed(
        new MutexStoreError(`the store did not answer within ${Math.round(errand.timeout)} ms`),
        this.settled,
      )
    }
    if (patience < Number.POSITIVE_INFINITY)
      this.#timer = setTimeout(look, Math.ceil(patience), this)
  }
}

function look(trip: Trip): void {
  setImmediate(() => trip.late())
}

/**
 * Redis's own words say what is wrong. They name no key, but ioredis notes the whole command on the
 * error: it stays there, where no logger sees it.
 */
function refusal(cause: unknown): MutexStoreError {
  if (cause instanceof Error && Object.hasOwn(cause, 'command')) {
    Object.defineProperty(cause, 'command', { enumerable: false })
  }
  const words = cause instanceof Error ? cause.message : String(cause)
  return new MutexStoreError(`the store refused or could not be reached: ${words}`, { cause })
}
