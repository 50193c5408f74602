import { errorMonitor } from 'node:events'
import { now } from '../../clock.js'
import type { RedisClient } from './client.js'

/** Who is told of a client's connection. */
export interface Watcher {
  /** It has broken. */
  broken(): void
  /** The client is closed. */
  ended(): void
}

type On = (event: string | symbol, listener: (about: unknown) => void) => void

/** What a Cluster has besides: its connections, each of which may send again what was in flight. */
interface Nodes {
  nodes?(): readonly Pick<RedisClient, 'on' | 'off'>[]
}

const watches = new WeakMap<RedisClient, Watch>()

/** Watches a client's connection for all stores on it: with one listener for each event. */
export class Watch {
  /** How often the connection has broken: commands are sent again then. */
  breaks = 0
  /** What the client met last while it tried to connect; nothing once it is connected. */
  trouble: Error | undefined
  /** Since when there is no connection. */
  #lostAt: number | undefined
  /** Has an attempt to connect failed since? */
  #down = false
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
    this.#ready()
  }

  /**
   * What is left of `timeout` for one who asks now, in ms. The time without a connection counts:
   * whoever comes later need not find out once more that there is none. But where reconnecting has not
   * even failed, it may be this process that did not run.
   */
  patience(timeout: number): number {
    if (this.#lostAt === undefined || this.#client.status === 'ready') return timeout
    const left = timeout - (now() - this.#lostAt)
    return left > 0 || this.#down ? left : timeout
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
    const { nodes } = this.#client as Nodes
    for (const node of nodes?.call(this.#client) ?? []) node[method]('close', this.#broken)
  }

  readonly #failed = (error: unknown): void => {
    if (error instanceof Error) this.trouble = error
  }

  readonly #ready = (): void => {
    this.trouble = undefined
    this.#lostAt = undefined
    this.#down = false
  }

  /** The connection has broken, or there was none to be had once more. */
  readonly #lost = (): void => {
    if (this.#lostAt === undefined) this.#lostAt = now()
    else this.#down = true
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
    for (const watcher of this.#watchers) watcher.ended()
  }
}
