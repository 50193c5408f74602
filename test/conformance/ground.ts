import { setImmediate, setTimeout as sleep } from 'node:timers/promises'
import {
  BlockTimeExceedError,
  Mutex,
  MutexLockError,
  type MutexOptions,
  MutexStoreError,
  type Store,
} from '@redismutex/core'
import { expect } from 'chai'
import { atEnd } from '../support/cleanup.js'
import { freshKey, freshPrefix } from '../support/redis.js'

/** A store as another process would have it: those of one prefix share their locks, if they can. */
export type MakeStore = (prefix: string) => Store

/** What a store may do without. */
export interface Traits {
  /** Does it make fencing tokens? */
  readonly fencing?: boolean
  /** Does it see to the order between processes, and wake the next one at once? */
  readonly ordered?: boolean
  /** Is a lock had with the first answer that the store gets? */
  readonly prompt?: boolean
}

/** What a test can see of a store, and do to it, from outside. */
export interface Outside {
  /** Ends a lock without asking its holder. */
  steal?(prefix: string, key: string): Promise<unknown>
  /** How many processes the store has queued for the key. */
  queued?(prefix: string, key: string): Promise<number>
  /** What it still holds, but for what expires by itself and blocks nobody. */
  leftovers?(prefix: string): Promise<string[]>
}

/** Where a test takes place: a store of its own, a key, and mutexes that are closed at its end. */
export class Ground {
  readonly outside: Outside
  readonly traits: Required<Traits>
  readonly #makeStore: MakeStore
  #prefix = ''
  #store: Store | undefined
  #key = ''

  constructor(makeStore: MakeStore, outside: Outside, traits: Traits) {
    this.#makeStore = makeStore
    this.outside = outside
    this.traits = { fencing: true, ordered: true, prompt: true, ...traits }
  }

  begin(): void {
    this.#prefix = freshPrefix()
    this.#key = freshKey()
    this.#store = undefined
  }

  get key(): string {
    return this.#key
  }

  get store(): Store {
    this.#store ??= this.#makeStore(this.#prefix)
    return this.#store
  }

  /** Another mutex on the store of this process. */
  mutex(options?: MutexOptions): Mutex {
    return mutexOn(this.store, options)
  }

  /** A mutex of another process: the same locks by way of a store of its own. */
  elsewhere(options?: MutexOptions): Mutex {
    return mutexOn(this.#makeStore(this.#prefix), options)
  }

  async steal(key: string = this.key): Promise<void> {
    await this.outside.steal?.(this.#prefix, key)
  }

  /** Resolves once the store has so many processes queued for the key. */
  async queued(count: number, key: string = this.key): Promise<void> {
    await until(async () => (await this.outside.queued?.(this.#prefix, key)) === count)
  }

  async leftovers(): Promise<string[]> {
    return (await this.outside.leftovers?.(this.#prefix)) ?? []
  }
}

/** One that is closed at the end, and has patience with a machine that is slow to connect. */
function mutexOn(store: Store, options?: MutexOptions): Mutex {
  const mutex = new Mutex(store, { storeTimeout: 4000, ...options })
  atEnd(() => mutex.close())
  return mutex
}

/** Of a mutex whose locks expire soon. They have to be had sooner still: see `patiently`. */
export const EXPIRING = { blockTime: 90, expiry: 100 }

/** Tries again when a busy machine had no answer within a short `blockTime`. */
export async function patiently<T>(attempt: () => Promise<T>): Promise<T> {
  let wasLate = false
  for (let left = 50; ; left--) {
    try {
      return await attempt()
    } catch (error) {
      const isLate = error instanceof MutexStoreError || error instanceof BlockTimeExceedError
      // What a late one has left with some masters is taken back in a moment.
      const isInItsOwnWay = wasLate && error instanceof MutexLockError
      wasLate ||= isLate
      if (!(isLate || isInItsOwnWay) || left === 0) throw error
    }
  }
}

/** What a promise rejects with. */
export async function rejection(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise
  } catch (error) {
    return error
  }
  return expect.fail('it was expected to reject')
}

/** The reason of a signal, once it has aborted. */
export async function aborted(signal: AbortSignal): Promise<unknown> {
  if (!signal.aborted) {
    await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
  }
  return signal.reason
}

/** Polls for what no event tells of. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 10_000
  while (!(await condition())) {
    if (performance.now() > deadline) expect.fail('it was expected to happen within 10 s')
    await sleep(2)
  }
}

/** Turns of the event loop in which everything that is ready can happen. */
export async function turns(count = 3): Promise<void> {
  for (let turn = 0; turn < count; turn++) await setImmediate()
}

/** Keeps the event loop from doing anything else. */
export function stall(ms: number): void {
  const end = performance.now() + ms
  while (performance.now() < end);
}

export const range = (count: number): number[] => Array.from({ length: count }, (_, n) => n)

/** Counts how many are inside at once. */
export class Room {
  entered = 0
  most = 0
  #inside = 0

  readonly visit = async (): Promise<void> => {
    this.entered++
    this.#inside++
    this.most = Math.max(this.most, this.#inside)
    await setImmediate()
    this.#inside--
  }
}
