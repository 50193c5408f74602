import { errorMonitor } from 'node:events'
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
    if (this.#watchers.delete(watcher) && this.#watchers.size === 0) this.#listen('off')
  }

  /** Only listens in to errors: one that nobody else hears is still printed by the client. */
  #listen(method: 'on' | 'off'): void {
    const each = this.#client[method].bind(this.#client) as On
    each(errorMonitor, this.#failed)
    each('ready', this.#ready)
    each('close', this.#broken)
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
