import { now } from '../clock.js'
import { type Asker, type Store, Tenure, type Wish } from './store.js'

class MemoryTenure extends Tenure {}

/**
 * A store inside this process, for one server or for development.
 *
 * Nothing is shared with other processes. All mutexes on one memory store exclude each other: the
 * line of a key is the only contender there is, so it always gets what it asks for, and keeps it
 * until the holder's `expiry`.
 *
 * @example
 * const mutex = new Mutex(memoryStore())
 */
export function memoryStore(): Store {
  let tenures = 0
  let lastToken = 0
  return {
    listeningSince: Number.NEGATIVE_INFINITY,
    listen() {},
    nameOf: (key) => key,
    tenure: (asker: Asker, wish: Wish) => new MemoryTenure(asker, wish, `memory|${++tenures}`),
    acquire(tenure) {
      grant(tenure)
    },
    cancel() {},
    async release(tenure, next) {
      lastToken = Math.max(lastToken, tenure.token ?? 0)
      if (next) grant(next)
      return true
    },
    async renew() {
      return true
    },
    open() {},
    async close() {},
  }

  function grant(tenure: Tenure): void {
    const at = now()
    lastToken = Math.max(lastToken + 1, Math.floor((performance.timeOrigin + at) * 1000))
    tenure.token = lastToken
    tenure.deadline = Number.POSITIVE_INFINITY
    tenure.heard = at
    tenure.asker.granted(tenure)
  }
}

let embedded: Store | undefined

/** The one store that everything without a store of its own shares in this process. */
export function embeddedStore(): Store {
  embedded ??= memoryStore()
  return embedded
}
