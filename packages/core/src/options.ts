import { LONGEST_TIMER } from './clock.js'

/** How a mutex waits and holds. All times are in milliseconds. */
export interface MutexOptions {
  /**
   * Whether to wait for a key that is held. `false`: one try, then `MutexLockError`.
   * @default true
   */
  blocking?: boolean | undefined
  /**
   * The longest wait for a lock, in ms; then `BlockTimeExceedError`. `Infinity` waits for ever.
   * @default 5000
   */
  blockTime?: number | undefined
  /**
   * How often a waiting process asks the store by itself, in ms. A release normally wakes the next
   * waiter at once; this is for the message that got lost. Less than `blockTime`.
   * @default 500, but at most half of `blockTime`
   */
  delay?: number | undefined
  /**
   * The longest that one holder keeps a lock, in ms, from when it got it (of several keys: from the last).
   * More than `blockTime`; `Infinity`: as long as the holder lives.
   * @default 7000, but at least `blockTime + 2000`
   */
  expiry?: number | undefined
  /**
   * How long a lock outlives a process that crashed, in ms. A live holder's is renewed until `expiry`.
   * Not more than `expiry`, and finite.
   * @default 10000, but at most `expiry`
   */
  lease?: number | undefined
  /**
   * The longest that one command to the store may take, in ms, and for which a broken connection is
   * waited for; then `MutexStoreError`.
   * @default 1000
   */
  storeTimeout?: number | undefined
  /**
   * How many may wait for one key in this process; the next gets `MutexQueueFullError` at once.
   * @default Infinity
   */
  maxWaiting?: number | undefined
}

/** Options that have been checked and completed. */
export interface Policy {
  readonly blocking: boolean
  readonly blockTime: number
  readonly delay: number
  readonly expiry: number
  readonly lease: number
  readonly storeTimeout: number
  readonly maxWaiting: number
}

const SHORTEST_LEASE = 20

/** What a message may show of a value that was refused. */
export function shown(value: unknown): string {
  if (typeof value === 'string') {
    // An address may have a password in it.
    if (value.includes('://')) return 'an address (string)'
    return `'${value.length > 40 ? `${value.slice(0, 40)}…` : value}' (string)`
  }
  if (value === null) return 'null'
  if (typeof value === 'object') return `an object of ${value.constructor?.name ?? 'no class'}`
  if (typeof value === 'function') return 'a function'
  return value === undefined ? 'undefined' : `${String(value)} (${typeof value})`
}

/** Refuses what is no plain object, and options that nobody knows. */
export function assertOptions(
  options: unknown,
  known: readonly string[],
  what: string = 'options',
): void {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw new TypeError(`${what} must be an object, got ${shown(options)}`)
  }
  for (const name of Object.keys(options)) {
    if (!known.includes(name)) {
      throw new TypeError(`unknown option ${shown(name)} in ${what}; known are ${known.join(', ')}`)
    }
  }
}

/** Without what was set to `undefined`. */
export function defined<T extends object>(options: T): T {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as T
}

type Check = (name: string, value: unknown) => void

const boolean: Check = (name, value) => {
  if (typeof value !== 'boolean')
    throw new TypeError(`${name} must be true or false, got ${shown(value)}`)
}

const number =
  (rule: string, holds: (value: number) => boolean): Check =>
  (name, value) => {
    const message = `${name} must be ${rule}, got ${shown(value)}`
    if (typeof value !== 'number') throw new TypeError(message)
    if (!holds(value)) throw new RangeError(message)
  }

const duration = (least: number): Check =>
  number(
    `a number of milliseconds from ${least} to ${LONGEST_TIMER}, or Infinity`,
    (ms) => (ms >= least && ms <= LONGEST_TIMER) || ms === Number.POSITIVE_INFINITY,
  )

const finiteDuration = (least: number): Check =>
  number(
    `a number of milliseconds from ${least} to ${LONGEST_TIMER}`,
    (ms) => ms >= least && ms <= LONGEST_TIMER,
  )

const checks: Record<keyof MutexOptions, Check> = {
  blocking: boolean,
  blockTime: duration(1),
  delay: finiteDuration(1),
  expiry: duration(SHORTEST_LEASE),
  lease: finiteDuration(SHORTEST_LEASE),
  storeTimeout: finiteDuration(1),
  maxWaiting: number(
    'a whole number from 1 up, or Infinity',
    (count) => count >= 1 && (Number.isInteger(count) || count === Number.POSITIVE_INFINITY),
  ),
}

/** The names of all options of a mutex. */
export const mutexOptionNames: readonly string[] = Object.keys(checks)

/**
 * Checks what was set, and lets the defaults of the rest give way to it.
 * @throws TypeError for a wrong type or an unknown option, RangeError for a wrong value or order
 */
export function resolveOptions(options: MutexOptions = {}): Policy {
  assertOptions(options, mutexOptionNames)
  for (const [name, check] of Object.entries(checks)) {
    const value = options[name as keyof MutexOptions]
    if (value !== undefined) check(name, value)
  }
  const blockTime = options.blockTime ?? 5000
  const delay = options.delay ?? Math.min(500, blockTime / 2)
  const expiry = options.expiry ?? Math.max(7000, blockTime + 2000)
  const lease = options.lease ?? Math.min(10_000, expiry)
  if (delay >= blockTime) {
    throw new RangeError(
      `delay must be less than blockTime, got delay ${delay} and blockTime ${blockTime}`,
    )
  }
  if (expiry <= blockTime && expiry !== Number.POSITIVE_INFINITY) {
    throw new RangeError(
      `expiry must be more than blockTime, got expiry ${expiry} and blockTime ${blockTime}`,
    )
  }
  if (lease > expiry) {
    throw new RangeError(
      `lease must not be more than expiry, got lease ${lease} and expiry ${expiry}`,
    )
  }
  return {
    blocking: options.blocking ?? true,
    blockTime,
    delay,
    expiry,
    lease,
    storeTimeout: options.storeTimeout ?? 1000,
    maxWaiting: options.maxWaiting ?? Number.POSITIVE_INFINITY,
  }
}
