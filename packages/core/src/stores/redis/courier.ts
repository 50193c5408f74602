import { now } from '../../clock.js'
import { MutexStoreError } from '../../errors.js'
import { Fifo, type Link } from '../../fifo.js'
import type { RedisClient } from './client.js'
import type { Script } from './scripts.js'
import type { Watch } from './watch.js'

/** The items of one call are done in one go: as many as keep Redis from others for no long time. */
const MOST = 128

/** What a node of a Cluster, or what stands before one, says of a call that it has not begun. */
const isAcrossSlots = (error: unknown): boolean =>
  error instanceof Error && error.message.startsWith('CROSSSLOT')

const isUnknownScript = (error: unknown): boolean =>
  error instanceof Error && error.message.startsWith('NOSCRIPT')

/** As `queueMicrotask` does, at half the cost. */
const SOON = Promise.resolve()

/** One key of many may be forbidden: then nothing of the call has been done. */
const isForbiddenKey = (error: unknown): boolean =>
  error instanceof Error && /^NOPERM.*\bkeys?\b/.test(error.message)

/** A server that wants nothing of this client. */
const isUnwelcome = (error: Error | undefined): error is Error =>
  error !== undefined && /^(NOAUTH|WRONGPASS|NOPERM)/.test(error.message)

/** A client's own time limit. A Cluster client may send the command once more, to another node. */
const isGivenUp = (error: unknown): boolean =>
  error instanceof Error && error.message === 'Command timed out'

/** Never resolves: of a command that may land at any time, and nobody tells when it can't any more. */
export const untold: Promise<void> = new Promise(() => {})

/** How far apart looks at the clock are while calls go unanswered, in ms. */
const LOOK = 10

/** What a script gives for one item. */
export type Answer = number | string | readonly Answer[]

/** Each begins with a number, however the client shows it. */
const makesSense = (answer: Answer | null | undefined): answer is Answer =>
  !Number.isNaN(Number(Array.isArray(answer) ? (answer[0] ?? Number.NaN) : (answer ?? Number.NaN)))

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

/** One item of a call. Exactly one of `answered` and `failed` is called, once. */
export interface Errand<Names> {
  readonly names: Names
  /** How long an answer may take, in ms. */
  readonly timeout: number
  /** Adds its arguments. */
  pack(args: string[]): void
  answered(answer: Answer): void
  /** `settled` resolves once the client has done with the command: until then it may still land. */
  failed(error: MutexStoreError, settled: Promise<void>): void
}

/**
 * Takes errands to Redis: those of one moment together, one script call for each verb, each with a
 * deadline of its own. On a Cluster each goes alone, since their slots differ; a client that is none
 * may lead to one, which shows in its first refusal.
 */
export class Courier<Verb extends string, Names> {
  readonly #client: RedisClient
  readonly #watch: Watch
  readonly #freight: Freight<Verb, Names>
  readonly #verbs: readonly Verb[]
  #inSlots: boolean
  readonly #bags = {} as Record<Verb, Errand<Names>[]>
  #leaving = false
  /** Those on their way, and those that were given up but may still land. */
  readonly #trips = new Fifo<Trip<Names>>()
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

  send(verb: Verb, errand: Errand<Names>): void {
    this.#bags[verb].push(errand)
    if (this.#leaving) return
    this.#leaving = true
    void SOON.then(this.#leave)
  }

  readonly #leave = (): void => {
    this.#leaving = false
    for (const verb of this.#verbs) {
      const bag = this.#bags[verb]
      if (bag.length === 0) continue
      this.#bags[verb] = []
      const most = this.#inSlots ? 1 : MOST
      for (let from = 0; from < bag.length; from += most) {
        this.#start(verb, bag.length > most ? bag.slice(from, from + most) : bag)
      }
    }
  }

  #start(verb: Verb, errands: Errand<Names>[]): void {
    const trip = new Trip(errands)
    const { trouble } = this.#watch
    if (isUnwelcome(trouble) && this.#client.status !== 'ready') {
      // It would be kept for the next attempt to connect, which may be seconds away.
      trip.fail(trouble)
      return
    }
    this.#trips.push(trip)
    this.#expect(trip.due)
    const inSlots = this.#inSlots
    const { scripts, pack } = this.#freight
    const keys: string[] = []
    for (const { names } of errands) pack(keys, names, inSlots)
    trip.begin(this.#client, scripts[verb], keys, (error) => {
      if (trip.forsaken) return
      this.#trips.remove(trip)
      if (!inSlots && isAcrossSlots(error)) {
        this.#inSlots = true
        for (const errand of trip.done()) if (errand) this.send(verb, errand)
      }
      if (errands.length > 1 && isForbiddenKey(error)) {
        for (const errand of trip.done()) if (errand) this.#start(verb, [errand])
      }
      if (this.#trips.size === 0) for (const resolve of this.#idle.splice(0)) resolve()
    })
  }

  /** Looks at the clock no later than `at`. */
  #expect(at: number): void {
    if (at >= this.#next) return
    this.#next = at
    clearTimeout(this.#timer)
    // A turn of the event loop later, so that what came during a stall has been read.
    this.#timer = setTimeout(() => setImmediate(() => this.#look()), Math.ceil(at - now()))
    // What is on its way keeps the process alive by its connection.
    this.#timer.unref()
  }

  #look(): void {
    const at = now()
    this.#next = Number.POSITIVE_INFINITY
    let next = Number.POSITIVE_INFINITY
    for (const trip of this.#trips) {
      if (at >= trip.due) trip.late(at, this.#trouble())
      next = Math.min(next, trip.due)
    }
    if (next < Number.POSITIVE_INFINITY) this.#expect(Math.max(next, at + LOOK))
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

  /** The connection has broken. */
  broken(): void {
    const { isCluster, options } = this.#client
    // A client that is told not to send again what was in flight says nothing of it any more. What
    // it keeps for the next connection is given up as well. The nodes of a Cluster do say it.
    if (options?.autoResendUnfulfilledCommands !== false || isCluster) return
    for (const trip of this.#trips) {
      this.#trips.remove(trip)
      trip.forsaken = true
      trip.fail(new Error('the connection broke before the reply came'))
    }
    for (const resolve of this.#idle.splice(0)) resolve()
  }

  /** Resolves when nothing is on its way any more, not even what was given up. */
  async idle(): Promise<void> {
    while (this.#leaving || this.#trips.size > 0) {
      await new Promise<void>((resolve) => {
        if (this.#trips.size > 0) this.#idle.push(resolve)
        else queueMicrotask(resolve)
      })
    }
  }
}

/** One call on its way. */
class Trip<Names> implements Link<Trip<Names>> {
  before: Trip<Names> | undefined
  after: Trip<Names> | undefined
  /** When the time of one of its errands is over. */
  due = Number.POSITIVE_INFINITY
  /** Nobody counts on the client to tell what becomes of it. */
  forsaken = false
  #errands: (Errand<Names> | undefined)[]
  readonly #began = now()
  #settled: Promise<void> | undefined
  #settle: (() => void) | undefined

  constructor(errands: Errand<Names>[]) {
    this.#errands = errands
    for (const errand of errands) this.due = Math.min(this.due, this.#began + errand.timeout)
  }

  /** @param over called when the client has done with the call, before anybody else hears of it */
  begin(
    client: RedisClient,
    script: Script,
    keys: readonly string[],
    over: (error?: unknown) => void,
  ): void {
    const args: string[] = []
    for (const errand of this.#errands) errand?.pack(args)
    const arrived = (reply: unknown) => {
      over()
      this.#arrived(reply)
    }
    const failed = (error: unknown) => {
      over(error)
      this.fail(error, client.isCluster && isGivenUp(error) ? untold : undefined)
    }
    const send = (method: 'evalsha' | 'eval', script: string, refused: (e: unknown) => void) => {
      try {
        void client[method](script, keys.length, ...keys, ...args).then(arrived, refused)
      } catch (error) {
        failed(error)
      }
    }
    // A server that does not know the script yet is sent its text.
    send('evalsha', script.sha, (error) => {
      if (isUnknownScript(error)) send('eval', script.text, failed)
      else failed(error)
    })
  }

  fail(error: unknown, settled: Promise<void> = SOON): void {
    for (const errand of this.done()) errand?.failed(refusal(error), settled)
  }

  #arrived(reply: unknown): void {
    const errands = this.done()
    const answers = errands.length === 1 ? [reply] : reply
    for (let index = 0; index < errands.length; index++) {
      const errand = errands[index]
      if (!errand) continue
      const answer: Answer | undefined = Array.isArray(answers) ? answers[index] : undefined
      if (!makesSense(answer)) {
        errand.failed(new MutexStoreError('the store gave an answer that makes no sense'), SOON)
      } else if (typeof answer === 'object' && Number(answer[0]) === -2) {
        errand.failed(refusal(new Error(String(answer[1]))), SOON)
      } else {
        errand.answered(answer)
      }
    }
  }

  /** Nothing can be late any more: gives those who were still waiting. */
  done(): (Errand<Names> | undefined)[] {
    const errands = this.#errands
    this.#errands = []
    this.due = Number.POSITIVE_INFINITY
    this.#settle?.()
    return errands
  }

  /** The time of some is over. */
  late(at: number, why: string): void {
    this.due = Number.POSITIVE_INFINITY
    this.#settled ??= new Promise((resolve) => {
      this.#settle = resolve
    })
    for (const [index, errand] of this.#errands.entries()) {
      if (!errand) continue
      const due = this.#began + errand.timeout
      if (at < due) {
        this.due = Math.min(this.due, due)
        continue
      }
      this.#errands[index] = undefined
      errand.failed(
        new MutexStoreError(
          `the store did not answer within ${Math.round(errand.timeout)} ms${why}`,
        ),
        this.#settled,
      )
    }
  }
}

/**
 * Redis's own words say what is wrong. They name no key, but ioredis notes the whole command on the
 * error: it stays there, where no logger sees it.
 */
export function refusal(cause: unknown): MutexStoreError {
  hideCommand(cause)
  // A Cluster client that tried several nodes tells what the last one said.
  hideCommand((cause as { lastNodeError?: unknown } | null | undefined)?.lastNodeError)
  const words = cause instanceof Error ? cause.message : String(cause)
  return new MutexStoreError(`the store refused or could not be reached: ${words}`, { cause })
}

function hideCommand(error: unknown): void {
  if (error instanceof Error && Object.hasOwn(error, 'command')) {
    Object.defineProperty(error, 'command', { enumerable: false })
  }
}
