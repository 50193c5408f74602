/** The `code` of each error, stable across versions. */
export type MutexErrorCode =
  | 'ERR_MUTEX_LOCKED'
  | 'ERR_MUTEX_BLOCK_TIME_EXCEEDED'
  | 'ERR_MUTEX_QUEUE_FULL'
  | 'ERR_MUTEX_REENTRY'
  | 'ERR_MUTEX_UNLOCK'
  | 'ERR_MUTEX_LOST'
  | 'ERR_MUTEX_EXPIRED'
  | 'ERR_MUTEX_CLIENT_GONE'
  | 'ERR_MUTEX_STORE'
  | 'ERR_MUTEX_CLOSED'

/** What every mutex error can be told besides its message. */
export interface MutexErrorOptions {
  /** The key it is about. Never part of the message, and not enumerable: keys come from requests. */
  key?: string | undefined
  /** What led to it. */
  cause?: unknown
}

/** The class of each code. */
const classes: Readonly<Record<MutexErrorCode, string>> = {
  ERR_MUTEX_LOCKED: 'MutexLockError',
  ERR_MUTEX_BLOCK_TIME_EXCEEDED: 'BlockTimeExceedError',
  ERR_MUTEX_QUEUE_FULL: 'MutexQueueFullError',
  ERR_MUTEX_REENTRY: 'MutexReentryError',
  ERR_MUTEX_UNLOCK: 'MutexUnlockError',
  ERR_MUTEX_LOST: 'MutexLostError',
  ERR_MUTEX_EXPIRED: 'MutexExpiredError',
  ERR_MUTEX_CLIENT_GONE: 'ClientGoneError',
  ERR_MUTEX_STORE: 'MutexStoreError',
  ERR_MUTEX_CLOSED: 'MutexClosedError',
}

/**
 * The base of all errors of this library.
 *
 * `instanceof` goes by `code`, so that it holds across two copies of the package too.
 */
export abstract class MutexError extends Error {
  /** Tells the kinds of error apart. */
  abstract readonly code: MutexErrorCode
  /** The key it is about, as it was given; not enumerable, so that loggers leave it out. */
  declare readonly key: string | undefined

  constructor(message: string, options: MutexErrorOptions = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined)
    Object.defineProperty(this, 'name', { value: new.target.name, configurable: true })
    Object.defineProperty(this, 'key', { value: options.key, configurable: true })
  }

  static override [Symbol.hasInstance](value: unknown): boolean {
    if (!(value instanceof Error)) return false
    const { code } = value as { code?: unknown }
    if (typeof code !== 'string' || !Object.hasOwn(classes, code)) return false
    const name = classes[code as MutexErrorCode]
    return (
      this === MutexError ||
      this.name === name ||
      Object.prototype.isPrototypeOf.call(this.prototype, value)
    )
  }
}

/** The key is held, waited for or being tried by somebody, and the caller did not want to wait. */
export class MutexLockError extends MutexError {
  override readonly code = 'ERR_MUTEX_LOCKED'
}

/** The lock did not come within `blockTime`. */
export class BlockTimeExceedError extends MutexError {
  override readonly code = 'ERR_MUTEX_BLOCK_TIME_EXCEEDED'
}

/** `maxWaiting` callers wait for this key in this process already. */
export class MutexQueueFullError extends MutexError {
  override readonly code = 'ERR_MUTEX_QUEUE_FULL'
}

/** An HTTP request that holds the key asks for it again, and would wait for itself. */
export class MutexReentryError extends MutexError {
  override readonly code = 'ERR_MUTEX_REENTRY'
}

/**
 * What was to be released is not held any more: the message says why. `cause` is what its signal
 * aborted with, if it had.
 */
export class MutexUnlockError extends MutexError {
  override readonly code = 'ERR_MUTEX_UNLOCK'
}

/** The store has given the lock to somebody else, or may have: stop working. A reason on `lock.signal`. */
export class MutexLostError extends MutexError {
  override readonly code = 'ERR_MUTEX_LOST'
}

/** The holder has kept the lock for its whole `expiry`. A reason on `lock.signal`. */
export class MutexExpiredError extends MutexError {
  override readonly code = 'ERR_MUTEX_EXPIRED'
}

/** The HTTP client that this lock was taken for has left. A reason on `lock.signal`. */
export class ClientGoneError extends MutexError {
  override readonly code = 'ERR_MUTEX_CLIENT_GONE'
}

/** The store can't be reached, doesn't answer in time, or refuses; `cause` has its own words. */
export class MutexStoreError extends MutexError {
  override readonly code = 'ERR_MUTEX_STORE'
}

/** What a store has met, as one who asked for that key is told of it. */
export const about = (key: string, { message, cause }: MutexStoreError): MutexStoreError =>
  new MutexStoreError(message, { key, cause })

/** The mutex has been closed. */
export class MutexClosedError extends MutexError {
  override readonly code = 'ERR_MUTEX_CLOSED'
}
