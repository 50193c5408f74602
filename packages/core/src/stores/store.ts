import { drift } from '../clock.js'
import type { MutexStoreError } from '../errors.js'
import type { Policy } from '../options.js'

/**
 * Who asks a store for a lock: the line of one key in this process.
 * A store tells it that the lock is granted, refused or that asking failed, once for each `acquire`,
 * and nothing after `cancel`.
 */
export interface Asker {
  /** The tenure is held until its `deadline`. */
  granted(tenure: Tenure): void
  /** The key is taken: the store has told the first in line to wait. It may say so again. */
  queued(tenure: Tenure): void
  /** A try found the key taken. */
  refused(tenure: Tenure): void
  /** The store could not be asked. `asked`: when the command that failed was sent. */
  failed(tenure: Tenure, cause: MutexStoreError, asked: number): void
}

/** What is asked for: which lock, for whom, and on what terms. */
export interface Wish {
  /** The lock's final name in the store, from `Store.nameOf`. */
  readonly name: string
  /** Since when the one it is asked for has waited (this process's clock). */
  readonly since: number
  /** How long it may wait in all. */
  readonly blockTime: number
  readonly policy: Policy
}

/**
 * This process's time with one lock under one owner value: asked for, held, over.
 *
 * An owner value serves one tenure only. While it is asked for, the store owns all of it; once it
 * is granted, the line and the keeper do, and the store writes only what it hears from others
 * (`contended`) and answers to `renew`.
 */
export abstract class Tenure {
  /** When it ends if it is not renewed, on this process's clock. */
  deadline = 0
  /** Since when it is held. */
  since = 0
  /** The fencing token used last; null where a store has none. */
  token: number | null = null
  /** Do other processes wait for the key? */
  contended = false
  /** If so, nobody there has waited since before this (this process's clock). */
  othersSince: number = Number.NEGATIVE_INFINITY
  /** As of when `contended` was known. */
  heard = 0

  /** The present holder's terms: for how long each renewal makes the lease last. */
  lease = 0
  /** Until when it may hold. */
  until: number = Number.POSITIVE_INFINITY
  /** How long one try to renew may take. */
  patience = 0
  /** How long the release may take. */
  storeTimeout: number
  /** The keeper's: when to renew next, and whether it is at it. */
  renewAt = 0
  renewing = false

  constructor(
    readonly asker: Asker,
    readonly wish: Wish,
    /** What the store holds for this tenure. */
    readonly owner: string,
  ) {
    this.storeTimeout = wish.policy.storeTimeout
  }

  /** Why the store does not give it although nobody else has it, if so. */
  trouble: MutexStoreError | undefined

  /** The highest token that may be in use `at` a time, so that the store's next one is higher. */
  lastToken(_at: number): number {
    return Number.MAX_SAFE_INTEGER
  }
}

/** When it is over for the present holder, on this process's clock. */
export const endOf = (tenure: Tenure): number => Math.min(tenure.until, tenure.deadline)

/** Does the lease reach to the end of the hold, but for the drift (and what sums of fractions lose)? */
export const lasts = ({ deadline, lease, until }: Tenure): boolean =>
  deadline + drift(lease) + 0.1 >= until

/**
 * What a line asks of any store.
 *
 * One contender per key and process: the line sees to the order inside the process, the store to
 * the order between processes. Whatever is late, lost or doubled on the way to a server is the
 * store's own affair: an `acquire` that failed or was cancelled leaves nothing behind.
 */
export interface Store {
  /**
   * Since when this process is told at once that others have begun to wait for a key that it holds;
   * `Infinity` while it is not.
   */
  readonly listeningSince: number
  /** Somebody waits, here or in the store: see to it that grants and contention are heard. */
  listen(): void
  /**
   * The lock's name in the store; equal names are the same lock.
   * @throws TypeError for a key that can't be stored
   */
  nameOf(key: string): string
  /** A new tenure with an owner value of its own; nothing is sent. */
  tenure(asker: Asker, wish: Wish): Tenure
  /** Asks for the lock, waiting in the store's queue unless the wish's policy is not `blocking`. */
  acquire(tenure: Tenure): void
  /** The one it was asked for has left. */
  cancel(tenure: Tenure): void
  /**
   * Gives the lock back and, in the same command, asks for `next`.
   * @returns whether it was still ours
   * @throws MutexStoreError when that can't be known
   */
  release(tenure: Tenure, next?: Tenure): Promise<boolean>
  /**
   * Makes the lease last `ms` from now, if that is later than it does.
   * @returns whether it was still ours
   * @throws MutexStoreError when that can't be known
   */
  renew(tenure: Tenure, ms: number): Promise<boolean>
  /** The first mutex on this store has come. */
  open(): void
  /** The last mutex on this store has gone. */
  close(): Promise<void>
}
