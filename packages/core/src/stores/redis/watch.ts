import { errorMonitor } from 'node:events'
import { now } from '../../clock.js'
import type { RedisClient } from './client.js'

/** Who is told of a client's connection. */
export interface Watcher {
  /** It has broken. */
  broken(): void
  /** There is one again. */
  restored?(): void
  /** The client is closed. */
  ended(): void
}

type On = (event: string | symbol, listener: (about: unknown) => void) => void

const watches = new WeakMap<RedisClient, Watch>()

/** Watches a client's connection for all stores on it: with one listener for each event. */
export class Watch {
  /** How often the connection has broken: commands are sent again then. */
  breaks = 0
  /** What the client met last while it tried to connect; nothing once it is connected. */
  trouble: Error | undefined
  /** Since when there is no connection. */
  #lostAt: number | undefined
  /** When an attempt to connect has failed last since. */
  #failedAt = 0
  readonly #client: RedisClient
  readonly #watchers = new Set<Watcher>()

  private constructor(client: RedisClient) {
    this.#client = client
  }

  static of(client: RedisClient): Watch {
    let watch = watches.get(client)
    if (!watch) {
      watch = new Watch(client)
      watches.set(client, watch)
    }
    return watch
  }

  /** Counts breaks from now on. */
  open(watcher: Watcher): void {
    if (this.#watchers.size === 0) this.#listen('on')
    this.#watchers.add(watcher)
  }

  close(watcher: Watcher): void {
    if (!this.#watchers.delete(watcher) || this.#watchers.size > 0) return
    this.#listen('off')
    this.#forget()
  }

  /** Was there a connection, and is there none? */
  get lost(): boolean {
    return this.#lostAt !== undefined && this.#client.status !== 'ready'
  }

  /**
   * What is left of `timeout` for one who asks now, in ms: whoever comes later need not find out once
   * more that there is no connection. Only the time for which that is known counts: else it may be
   * this process that did not run.
   */
  patience(timeout: number): number {
    if (this.#lostAt === undefined || this.#client.status === 'ready') return timeout
    return timeout - (this.#failedAt - this.#lostAt)
  }

  /** Only listens in to errors: one that nobody else hears is still printed by the client. */
  #listen(method: 'on' | 'off'): void {
    const each = this.#client[method].bind(this.#client) as On
    each(errorMonitor, this.#failed)
    each('ready', this.#ready)
    each('close', this.#lost)
    each('-node', this.#broken)
    each('+node', this.#added)
    each('end', this.#ended)
    // Each connection of a Cluster may send again what was in flight.
    for (const node of this.#client.nodes?.() ?? []) node[method]('close', this.#broken)
  }

  readonly #failed = (error: unknown): void => {
    if (error instanceof Error) this.trouble = error
    // A client that finds no Sentinel tells nothing but that.
    if (this.#lostAt !== undefined) this.#failedAt = now()
  }

  readonly #ready = (): void => {
    this.#forget()
    for (const watcher of this.#watchers) watcher.restored?.()
  }

  #forget(): void {
    this.trouble = undefined
    this.#lostAt = undefined
  }

  /** The connection has broken, or there was none to be had once more. */
  readonly #lost = (): void => {
    this.#failedAt = now()
    this.#lostAt ??= this.#failedAt
    this.#broken()
  }

  readonly #broken = (): void => {
    this.breaks++
    for (const watcher of this.#watchers) watcher.broken()
  }

  /** A Cluster says nothing of a node that it connects to once more. */
  readonly #added = (node: unknown): void => {
    ;(node as Pick<RedisClient, 'on'>).on('close', this.#broken)
  }

  readonly #ended = (): void => {
    // Whoever connects it again begins anew.
    this.#lostAt = undefined
    for (const watcher of this.#watchers) watcher.ended()
  }
}
