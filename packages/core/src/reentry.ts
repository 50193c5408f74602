import { AsyncLocalStorage } from 'node:async_hooks'
import type { Store } from './stores/store.js'

/** Somebody who holds locks while it runs, as a request does. */
export interface Holder {
  has(store: Store, name: string): boolean
}

const running = new AsyncLocalStorage<Holder>()

/** Runs `body`, and all that comes of it, as that holder. */
export function runAs<T>(holder: Holder, body: () => T): T {
  return running.getStore() === holder ? body() : running.run(holder, body)
}

/** Does whoever runs now hold that lock itself? */
export function holdsItself(store: Store, name: string): boolean {
  return running.getStore()?.has(store, name) ?? false
}
