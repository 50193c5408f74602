import { AsyncLocalStorage } from 'node:async_hooks'
import type { Store } from './stores/store.js'

/** Somebody who holds locks while it runs, as a request does. */
export interface Holder {
  has(store: Store, name: string): boolean
}

/** Before Node.js 24 every promise of the process costs more while a context is followed. */
const CHEAP = Number(process.versions.node.split('.')[0]) >= 24

/** How many requests are followed, where that is dear, to see whether anybody asks by hand at all. */
const PROBATION = 1000

const contexts = new AsyncLocalStorage<Holder>()
/** Who runs right now, until its first await: known for nothing. */
let running: Holder | undefined
let anybodyAsks = false

/**
 * Whether those who hold locks of one store are followed beyond their first await. Always where that
 * is cheap. Elsewhere all are once the app has made a mutex of its own on that store, or asked one by
 * hand, and before that the first ones: where nobody asks, nobody can wait for itself.
 */
export class Following {
  #asked = false
  #left = PROBATION

  /** Somebody asks by hand, and not for a request, or is about to. */
  ask(): void {
    this.#asked = true
    anybodyAsks = true
  }

  /** Is the next holder to be followed? */
  next(): boolean {
    if (CHEAP || this.#asked) return true
    if (this.#left === 0) return false
    this.#left--
    if (this.#left > 0) return true
    if (!anybodyAsks) contexts.disable()
    return false
  }
}

/** Runs `body` as that holder. */
export function runAs<T>(holder: Holder, follow: boolean, body: () => T): T {
  const before = running
  running = holder
  try {
    return follow ? contexts.run(holder, body) : body()
  } finally {
    running = before
  }
}

/** Does whoever runs now hold that lock itself? */
export function holdsItself(store: Store, name: string): boolean {
  const holder = running ?? contexts.getStore()
  return holder?.has(store, name) ?? false
}
