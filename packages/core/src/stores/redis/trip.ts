import { now } from '../../clock.js'
import { MutexStoreError } from '../../errors.js'
import type { Link } from '../../fifo.js'
import { type Call, call } from './call.js'
import type { RedisClient } from './client.js'
import type { Script } from './scripts.js'

export const isUnknownScript = (error: unknown): boolean =>
  error instanceof Error && error.message.startsWith('NOSCRIPT')

/** As `queueMicrotask` does, at half the cost. */
export const SOON: Promise<void> = Promise.resolve()

/** A client's own time limit: it may send the command all the same, and once more after a break. */
export const isGivenUp = (error: unknown): boolean =>
  error instanceof Error && error.message === 'Command timed out'

/**
 * Resolves once the client has done with a command: until then it may land. Gives whether it can't any
 * more; else nobody ever tells.
 */
export type Settled = Promise<boolean>

/** Of two commands. */
export async function bothSettled(one: Settled, other: Settled): Settled {
  const both = await Promise.all([one, other])
  return both.every(Boolean)
}

/** Of what can't land any more. */
export const settled: Settled = Promise.resolve(true)
/** Of what may still land, and nobody ever tells. */
export const untold: Settled = Promise.resolve(false)

/** How much of its time a call gets: the rest is for telling those who asked, so that they know by then. */
const SHARE = 0.975

const dueOf = (began: number, { timeout }: { readonly timeout: number }): number =>
  began + timeout * SHARE

/** What a script gives for one item. */
export type Answer = number | string | readonly Answer[]

/** Each begins with a number, however the client shows it. */
const makesSense = (answer: Answer | null | undefined): answer is Answer =>
  !Number.isNaN(Number(Array.isArray(answer) ? (answer[0] ?? Number.NaN) : (answer ?? Number.NaN)))

/** One item of a call. Exactly one of `answered` and `failed` is called, once; `sent`: when it went. */
export interface Errand<Names> {
  readonly names: Names
  /** When to know what came of it, in ms from now. */
  readonly timeout: number
  /** May it wait for others to come along that are sent later in this turn of the event loop? */
  readonly mayWait?: boolean
  /** Adds its arguments. */
  pack(args: string[]): void
  answered(answer: Answer, sent: number): void
  failed(error: MutexStoreError, settled: Settled, sent: number): void
}

/** One call, on its way or about to be. */
export class Trip<Verb, Names> implements Link<Trip<Verb, Names>> {
  before: Trip<Verb, Names> | undefined
  after: Trip<Verb, Names> | undefined
  /** How many still wait for it. */
  size: number
  /** When the time of one of its errands is over. */
  due: number = Number.POSITIVE_INFINITY
  /** Has the connection broken since it was sent? It was sent again then, and may come once more. */
  resent = false
  /** Nobody counts on the client to tell what becomes of it. */
  forsaken = false
  #errands: (Errand<Names> | undefined)[]
  readonly #began = now()
  /** What has not been sent can't land. */
  #settled: Settled | undefined = settled
  #settle: ((settled: Settled) => void) | undefined

  constructor(
    readonly verb: Verb,
    errands: Errand<Names>[],
  ) {
    this.#errands = errands
    this.size = errands.length
    for (const errand of errands) this.due = Math.min(this.due, dueOf(this.#began, errand))
  }

  /** Those who still wait for it. */
  get errands(): readonly (Errand<Names> | undefined)[] {
    if (this.size < this.#errands.length) this.#errands = this.#errands.filter(Boolean)
    return this.#errands
  }

  /**
   * @param args the keys of its errands, to which their arguments are added
   * @param over called when the client has done with the call, before anybody else hears of it
   */
  begin(
    client: RedisClient,
    script: Script,
    args: string[],
    over: (error?: unknown) => void,
  ): void {
    this.#settled = undefined
    const keys = args.length
    for (const errand of this.errands) errand?.pack(args)
    const arrived = (reply: unknown) => {
      over()
      this.#arrived(reply)
    }
    // In the next turn, since a client may refuse at once: who tries again without a pause would let
    // nothing else happen.
    const failed = (error: unknown) => {
      setImmediate(() => {
        over(error)
        this.fail(error, isGivenUp(error) ? untold : undefined)
      })
    }
    const send = (how: Call, script: string, refused: (e: unknown) => void) => {
      try {
        void call(client, how, script, keys, args).then(arrived, refused)
      } catch (error) {
        failed(error)
      }
    }
    // A server that does not know the script yet is sent its text. But nothing is taken any more for
    // those who have given up: what takes it back may have come first.
    send('evalsha', script.sha, (error) => {
      const isWanted = !script.takes || this.#errands.some((errand) => errand !== undefined)
      if (isUnknownScript(error) && isWanted) send('eval', script.text, failed)
      else failed(error)
    })
  }

  fail(error: unknown, how: Settled = settled): void {
    for (const errand of this.done(how)) errand?.failed(refusal(error), how, this.#began)
  }

  #arrived(reply: unknown): void {
    const errands = this.done()
    const answers = errands.length === 1 ? [reply] : reply
    for (let index = 0; index < errands.length; index++) {
      const errand = errands[index]
      if (!errand) continue
      const answer: Answer | undefined = Array.isArray(answers) ? answers[index] : undefined
      if (!makesSense(answer)) {
        errand.failed(
          new MutexStoreError('the store gave an answer that makes no sense'),
          settled,
          this.#began,
        )
      } else if (typeof answer === 'object' && Number(answer[0]) === -2) {
        errand.failed(refusal(new Error(String(answer[1]))), settled, this.#began)
      } else {
        errand.answered(answer, this.#began)
      }
    }
  }

  /** Nothing can be late any more, unless nobody tells: gives those who were still waiting. */
  done(how: Settled = settled): (Errand<Names> | undefined)[] {
    const errands = this.#errands
    this.#errands = []
    this.due = Number.POSITIVE_INFINITY
    this.#settle?.(this.resent ? untold : how)
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
      const due = dueOf(this.#began, errand)
      if (at < due) {
        this.due = Math.min(this.due, due)
        continue
      }
      this.#errands[index] = undefined
      this.size--
      errand.failed(
        new MutexStoreError(
          `the store did not answer within ${Math.ceil(errand.timeout)} ms${why}`,
        ),
        this.#settled,
        this.#began,
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
