import type { RedisClient } from './client.js'

const watches = new WeakMap<RedisClient, Watch>()

/** Watches a client's connection for all stores on it: with one listener for each event. */
export class Watch {
  /** How often the connection has broken: commands are sent again then. */
  breaks = 0
  readonly #client: RedisClient
  readonly #watchers = new Set<() => void>()

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

  /** Counts breaks from now on, and calls `ended` when the client is closed. */
  open(ended: () => void): void {
    if (this.#watchers.size === 0) {
      this.#client.on('close', this.#broken)
      this.#client.on('-node', this.#broken)
      this.#client.on('end', this.#ended)
    }
    this.#watchers.add(ended)
  }

  close(ended: () => void): void {
    if (!this.#watchers.delete(ended) || this.#watchers.size > 0) return
    this.#client.off('close', this.#broken)
    this.#client.off('-node', this.#broken)
    this.#client.off('end', this.#ended)
  }

  readonly #broken = (): void => {
    this.breaks++
  }

  readonly #ended = (): void => {
    for (const ended of this.#watchers) ended()
  }
}
