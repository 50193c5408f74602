import { errorMonitor } from 'node:events'
import type { RedisClient } from './client.js'

/** Who is told of a client's connection. */
export interface Watcher {
  /** It has broken. */
  broken(): void
  /** The client is closed. */
  ended(): void
}

type On = (event: string | symbol, listener: (error: unknown) => void) => void

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
    if (this.#watchers.size === 0) this.#listen(this.#client.on)
    this.#watchers.add(watcher)
  }

  close(watcher: Watcher): void {
    if (this.#watchers.delete(watcher) && this.#watchers.size === 0) this.#listen(this.#client.off)
  }

  /** Only listens in to errors: one that nobody else hears is still printed by the client. */
  #listen(method: RedisClient['on' | 'off']): void {
    const each = method.bind(this.#client) as On
    each(errorMonitor, this.#failed)
    each('ready', this.#ready)
    each('close', this.#broken)
    each('-node', this.#broken)
    each('end', this.#ended)
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

  readonly #ended = (): void => {
    for (const watcher of this.#watchers) watcher.ended()
  }
}
