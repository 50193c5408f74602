import { LONGEST_TIMER, now } from '../../clock.js'
import { MutexStoreError } from '../../errors.js'
import type { RedisClient } from './client.js'
import { MOST } from './courier.js'
import { freight } from './errands.js'
import type { Names } from './names.js'
import { type Answer, isUnknownScript, refusal } from './trip.js'
import { Watch, type Watcher } from './watch.js'

/** How many of a primary's replicas must have what it has granted, before it counts. */
export interface WaitReplicas {
  /** A whole number from 1 up. */
  readonly count: number
  /** The longest that one try waits for them, in ms: a whole number from 1 up. */
  readonly timeout: number
}

/** What a renewal says that replicas have too, and from when on it counts. */
export interface Confirmed {
  readonly answer: Answer
  readonly since: number
}

interface Item {
  readonly names: Names
  readonly args: readonly string[]
  /** How long the server may take to answer, beside waiting. */
  readonly patience: number
  resolve(confirmed: Confirmed): void
  reject(error: MutexStoreError): void
}

/**
 * Has leases renewed and waits until replicas have them, on a connection of its own, since WAIT keeps
 * all that is sent after it waiting. It counts what its own connection has written: a renewal, which
 * comes after the grant in what replicas are sent. What is to be confirmed meanwhile goes together next.
 *
 * https://redis.io/docs/latest/commands/wait/
 */
export class Replicas {
  readonly #client: RedisClient
  readonly #terms: WaitReplicas
  #connection: Connection | undefined
  #next: Item[] = []
  #busy = false
  #open = false

  constructor(client: RedisClient, terms: WaitReplicas) {
    this.#client = client
    this.#terms = terms
  }

  /**
   * @param args of the renewal
   * @throws MutexStoreError if it could not be asked for, or too few replicas have it
   */
  confirm(names: Names, args: readonly string[], patience: number): Promise<Confirmed> {
    return new Promise((resolve, reject) => {
      this.#next.push({ names, args, patience, resolve, reject })
      if (this.#busy) return
      this.#busy = true
      queueMicrotask(() => void this.#go())
    })
  }

  async #go(): Promise<void> {
    while (this.#next.length > 0) {
      const items = this.#next.splice(0)
      try {
        await this.#round(items)
      } catch (error) {
        const failure = error instanceof MutexStoreError ? error : refusal(error)
        for (const item of items) item.reject(failure)
      }
    }
    this.#busy = false
  }

  async #round(items: readonly Item[]): Promise<void> {
    if (!this.#open || this.#client.status === 'end') {
      throw new MutexStoreError('the connection is closed')
    }
    if (this.#connection?.hasEnded) this.disconnect()
    this.#connection ??= new Connection(this.#client)
    const connection = this.#connection
    const { count, timeout } = this.#terms
    const since = now()
    const most = timeout + Math.max(...items.map(({ patience }) => patience))
    const { answers, replicas } = await within(most, connection.renew(items, this.#terms), () => {
      // It would keep the next ones waiting too.
      connection.close()
      if (this.#connection === connection) this.#connection = undefined
    })
    for (const [index, item] of items.entries()) {
      const answer = answers[index]
      if (answer === undefined || answer === null) {
        item.reject(new MutexStoreError('the store gave an answer that makes no sense'))
      } else if (typeof answer === 'object') {
        item.reject(refusal(new Error(String(answer[1]))))
      } else if (Number(answer) > 0 && replicas < count) {
        const words = `only ${replicas} of ${count} replicas had the lock within ${timeout} ms`
        item.reject(new MutexStoreError(words))
      } else {
        item.resolve({ answer, since })
      }
    }
  }

  open(): void {
    this.#open = true
  }

  close(): void {
    this.#open = false
    this.disconnect()
  }

  /** Whoever confirms again connects anew. */
  disconnect(): void {
    this.#connection?.close()
    this.#connection = undefined
  }
}

class Connection implements Watcher {
  readonly #client: RedisClient
  readonly #watch: Watch
  /** How often it had broken when the server was last seen to know the script. */
  #knownSince: number | undefined

  constructor(client: RedisClient) {
    this.#client = client.duplicate({
      // Sent again on a new connection, a WAIT alone would wait for nothing, and say that all have it.
      // What is not sent again is only answered, with an error, if it may not be retried either.
      autoResendUnfulfilledCommands: false,
      maxRetriesPerRequest: 0,
      enableOfflineQueue: true,
      commandTimeout: undefined,
    })
    this.#client.on('error', ignore)
    this.#watch = Watch.of(this.#client)
    this.#watch.open(this)
  }

  broken(): void {}

  /** It does not come back. */
  hasEnded = false
  ended(): void {
    this.hasEnded = true
  }

  /**
   * @param isKnown does the server know the script? That it does not, it says only after the WAIT, so
   *   one that is new is sent the text
   */
  async renew(
    items: readonly Item[],
    { count, timeout }: WaitReplicas,
    isKnown: boolean = this.#knownSince === this.#watch.breaks,
  ): Promise<{ answers: readonly Answer[]; replicas: number }> {
    const { breaks } = this.#watch
    const renewed: Promise<readonly Answer[]>[] = []
    for (let from = 0; from < items.length; from += MOST) {
      renewed.push(this.#call(items.slice(from, from + MOST), isKnown || from > 0))
    }
    // `wait` is there: it was looked for when the store was made.
    const waited = this.#client.wait?.(count, timeout)
    const [replies, replicas] = await Promise.allSettled([Promise.all(renewed), waited])
    if (replies.status === 'rejected') {
      if (isUnknownScript(replies.reason) && isKnown) {
        return this.renew(items, { count, timeout }, false)
      }
      throw replies.reason
    }
    this.#knownSince = breaks
    if (replicas.status === 'rejected') throw replicas.reason
    if (this.#watch.breaks !== breaks) {
      throw new MutexStoreError('the connection broke while replicas were waited for')
    }
    return { answers: replies.value.flat(), replicas: Number(replicas.value) }
  }

  async #call(items: readonly Item[], isKnown: boolean): Promise<readonly Answer[]> {
    const keys: string[] = []
    for (const { names } of items) freight.pack(keys, names, false)
    const args = items.flatMap((item) => item.args)
    const { sha, text } = freight.scripts.renew
    const reply = isKnown
      ? await this.#client.evalsha(sha, keys.length, ...keys, ...args)
      : await this.#client.eval(text, keys.length, ...keys, ...args)
    return (items.length === 1 ? [reply] : reply) as readonly Answer[]
  }

  close(): void {
    this.#watch.close(this)
    this.#client.disconnect()
  }
}

/** What a promise gives, unless it takes longer than `ms`. */
function within<T>(ms: number, promise: Promise<T>, late: () => void): Promise<T> {
  return new Promise((resolve, reject) => {
    // A turn of the event loop later, so that what came during a stall has been read.
    const look = () => {
      reject(new MutexStoreError(`the store did not answer within ${Math.round(ms)} ms`))
      late()
    }
    const timer = setTimeout(setImmediate, Math.min(Math.ceil(ms), LONGEST_TIMER), look)
    promise.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}

/** ioredis reconnects by itself, and prints errors that nobody listens for. */
function ignore(): void {}
