import type { Server } from 'node:http'
import type { Locker } from '../contestants/contestant.js'

/** What the requests of one user are kept apart by. */
export type Guard =
  | { readonly kind: 'none' }
  /** Our own adapter, on the Redis of this port. */
  | { readonly kind: 'adapter'; readonly port: number }
  /** What has to be written by hand around a library that knows nothing of requests. */
  | { readonly kind: 'hand-written'; readonly locker: Locker }

/** A server that answers `POST /users/:id` after so many ms of work. */
export type MakeServer = (guard: Guard, work: number) => Promise<Server>

/** Our adapters let 50 of a user's requests wait, and refuse the next: here nobody is refused. */
export const adapterOptions = {
  blockTime: 60_000,
  maxWaiting: Number.POSITIVE_INFINITY,
}

/** How long a connection may be quiet, in ms: longer than the load is paused. */
export const KEEP_ALIVE = 3_600_000

/**
 * Runs the handler under the lock. The client may leave while its request waits: then the lock that
 * comes is given back and nothing is run. It may leave while the handler runs: the lock is kept
 * until the handler is done. The answer doesn't wait for the release.
 */
export async function underLock<T>(
  locker: Locker,
  key: string,
  left: () => boolean,
  handler: () => Promise<T>,
): Promise<T | undefined> {
  const release = await locker.acquire(key)
  try {
    return left() ? undefined : await handler()
  } finally {
    void Promise.resolve(release()).catch((error) => console.error(error))
  }
}
