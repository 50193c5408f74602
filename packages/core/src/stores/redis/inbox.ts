import { now } from '../../clock.js'
import { asNobody } from '../../nobody.js'
import type { RedisClient } from './client.js'
import { isGivenUp } from './trip.js'

/** How often a waiting process makes sure that it would be told, in ms. */
const CHECK = 1000

/** What others tell this process, by the number of its owner value. */
export interface InboxMessages {
  /** Somebody else waits for what `n` holds or is about to hold. */
  contended(n: number): void
  /**
   * `n` has been granted its lock, after waiting for `age` ms; the first of the others had waited for
   * `others` ms then (0: nobody had).
   */
  granted(n: number, token: number, others: number, age: number): void
  /** From now on nothing is missed; before, it may have been. */
  live(): void
}

/**
 * This process's own channel, on a connection of its own that is opened when somebody waits.
 *
 * The connection is checked while it is wanted, by subscribing once more: a server answers that as
 * it answers a PING, it works on a Cluster too, and it heals a subscription that got lost.
 */
export class Inbox {
  readonly #client: RedisClient
  readonly #channel: string
  readonly #messages: InboxMessages
  #connection: Connection | undefined
  #wantedUntil = 0
  #timer: NodeJS.Timeout | undefined

  constructor(client: RedisClient, channel: string, messages: InboxMessages) {
    this.#client = client
    this.#channel = channel
    this.#messages = messages
  }

  /** Since when this process is told; `Infinity` while it may not be. */
  get liveSince(): number {
    const connection = this.#connection
    if (!connection || now() - connection.heard > 2 * CHECK) return Number.POSITIVE_INFINITY
    return connection.liveSince
  }

  /** Somebody waits, and asks again in `ms`: until a few seconds after that this process must be told. */
  want(ms: number = 0): void {
    this.#wantedUntil = Math.max(this.#wantedUntil, now() + ms + 5 * CHECK)
    if (this.#timer || this.#client.status === 'end') return
    asNobody(() => {
      this.#timer = setInterval(() => this.#check(), CHECK)
      this.#timer.unref()
      this.#check()
    })
  }

  #check(): void {
    if (now() > this.#wantedUntil) {
      clearInterval(this.#timer)
      this.#timer = undefined
      if (this.#connection?.liveSince === Number.POSITIVE_INFINITY) this.#disconnect()
      return
    }
    // It owes an answer for long: a half-open connection. A new one is quicker.
    if (this.#connection?.mute || this.#connection?.ended) this.#disconnect()
    this.#connection ??= new Connection(
      inboxOf(this.#client),
      this.#channel,
      this.#messages,
      () => {
        if (!this.#timer) this.#disconnect()
      },
    )
    this.#connection.check()
  }

  close(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
    this.#disconnect()
  }

  /** A client that is closed while it reconnects tells nobody: what nobody wants is not to go on. */
  #disconnect(): void {
    this.#connection?.close()
    this.#connection = undefined
  }
}

/**
 * A client to subscribe with. It is not to do that again of its own accord when it connects once more:
 * nobody would handle it if that fails, as when it is closed meanwhile.
 */
const inboxOf = (client: RedisClient): RedisClient =>
  client.isCluster ? client.duplicate() : client.duplicate({ autoResubscribe: false })

class Connection {
  /** Until when nothing has been missed, as far as is known. */
  heard = Number.NEGATIVE_INFINITY
  /** Since when nothing has been missed; `Infinity` while we are not subscribed. */
  liveSince: number = Number.POSITIVE_INFINITY
  readonly #client: RedisClient
  readonly #channel: string
  readonly #messages: InboxMessages
  readonly #broken: () => void
  /** The subscription that is not answered yet, and when it was sent. */
  #asked: { at: number } | undefined
  /** Since when it owes an answer: to the client's own first commands, or to subscriptions. */
  #owesSince: number | undefined

  constructor(client: RedisClient, channel: string, messages: InboxMessages, broken: () => void) {
    this.#client = client
    this.#channel = channel
    this.#messages = messages
    this.#broken = broken
    client.on('error', ignore)
    client.on('connect', this.#connected)
    client.on('ready', this.#subscribe)
    client.on('close', this.#lost)
    client.on('message', this.#read)
  }

  get mute(): boolean {
    return this.#owesSince !== undefined && now() - this.#owesSince > 4 * CHECK
  }

  /** It will not connect again by itself. */
  get ended(): boolean {
    return this.#client.status === 'end'
  }

  check(): void {
    // A client that connects lazily has made a lazy one, which its first command connects.
    if (this.#client.status === 'ready' || this.#client.status === 'wait') this.#subscribe()
  }

  readonly #connected = (): void => {
    this.#owesSince = now()
  }

  readonly #subscribe = (): void => {
    if (this.#asked) return
    const asked = { at: now() }
    this.#asked = asked
    this.#owesSince ??= asked.at
    this.#client.subscribe(this.#channel).then(
      () => {
        if (this.#asked !== asked) return
        this.#asked = undefined
        this.#owesSince = undefined
        // What was said before has been read by now; of what came later, nothing is known.
        this.heard = asked.at
        if (this.liveSince < Number.POSITIVE_INFINITY) return
        this.liveSince = now()
        this.#messages.live()
      },
      (error: unknown) => {
        if (this.#asked !== asked) return
        const since = this.#owesSince
        this.#lost()
        if (isGivenUp(error)) this.#owesSince = since
      },
    )
  }

  readonly #lost = (): void => {
    this.#asked = undefined
    this.#owesSince = undefined
    this.heard = Number.NEGATIVE_INFINITY
    this.liveSince = Number.POSITIVE_INFINITY
    this.#broken()
  }

  readonly #read = (channel: unknown, message: unknown): void => {
    if (channel !== this.#channel || typeof message !== 'string') return
    const [what, ...rest] = message.split('|')
    if (what === 'contended') this.#messages.contended(Number(rest[0]))
    if (what === 'grant') {
      const [token = 0, others = 0, age = 0, n = 0] = rest.map(Number)
      this.#messages.granted(n, token, others / 1000, age / 1000)
    }
  }

  close(): void {
    this.#client.off('connect', this.#connected)
    this.#client.off('ready', this.#subscribe)
    this.#client.off('close', this.#lost)
    this.#client.off('message', this.#read)
    this.#client.disconnect()
  }
}

/** ioredis reconnects by itself, and prints errors that nobody listens for. */
function ignore(): void {}
