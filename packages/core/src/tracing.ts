import { type Channel, tracingChannel } from 'node:diagnostics_channel'
import { now } from './clock.js'
import { type Lock, whenOver } from './lock.js'
import type { Mutex } from './mutex.js'

/** What both channels tell of. */
interface Traced {
  readonly mutex: Mutex
  /**
   * The keys that were asked for. Not enumerable, as in errors: they come from requests, so they are
   * for a trace at most, never for a metric's attributes.
   */
  readonly keys: readonly string[]
}

/**
 * An acquisition, on the tracing channel `redismutex.acquire`: `start` and `end` are around the call,
 * `asyncStart` and `asyncEnd` come when the lock has come or been refused, `error` when refused.
 */
export interface AcquireEvent extends Traced {
  /** Would it wait? */
  readonly blocking: boolean
  /** The lock; `result.waited` says how long it took, in ms. */
  result?: Lock
  /** Why there is none. */
  error?: unknown
}

/**
 * A hold, on the tracing channel `redismutex.hold`: `start` and `end` come when the lock is there,
 * `asyncStart` and `asyncEnd` when it is over, `error` when it was lost or could not be released.
 */
export interface HoldEvent extends Traced {
  readonly lock: Lock
  /** How long it was held, in ms, once it is over. */
  held?: number
  /** Why it ended without a release, or why the release failed. */
  error?: unknown
}

const acquire = tracingChannel('redismutex.acquire')
const hold = tracingChannel('redismutex.hold')

/** Does anybody listen? Otherwise nothing is made. */
export function isTraced(): boolean {
  return acquire.hasSubscribers || hold.hasSubscribers
}

/** Tells of an acquisition, and of the hold that comes of it. */
export function traced(
  mutex: Mutex,
  key: unknown,
  blocking: boolean,
  ask: () => Promise<Lock>,
): Promise<Lock> {
  const keys: readonly string[] = Array.isArray(key) ? key : typeof key === 'string' ? [key] : []
  const event: AcquireEvent = withKeys({ mutex, blocking }, keys)
  publish(acquire.start, event)
  let asked: Promise<Lock>
  try {
    asked = ask()
  } catch (error) {
    event.error = error
    publish(acquire.error, event)
    throw error
  } finally {
    publish(acquire.end, event)
  }
  return asked.then(
    (lock) => {
      event.result = lock
      publish(acquire.asyncStart, event)
      publish(acquire.asyncEnd, event)
      traceHold(withKeys({ mutex, lock }, keys))
      return lock
    },
    (error) => {
      event.error = error
      publish(acquire.error, event)
      publish(acquire.asyncStart, event)
      publish(acquire.asyncEnd, event)
      throw error
    },
  )
}

function traceHold(event: HoldEvent): void {
  const since = now()
  publish(hold.start, event)
  publish(hold.end, event)
  whenOver(event.lock, (end) => {
    // A lost lock may be released as well.
    if (event.held !== undefined) return
    event.held = now() - since
    end.then(() => over(), over)
  })

  function over(error?: unknown): void {
    if (error !== undefined) {
      event.error = error
      publish(hold.error, event)
    }
    publish(hold.asyncStart, event)
    publish(hold.asyncEnd, event)
  }
}

function withKeys<T extends object>(event: T, keys: readonly string[]): T & Traced {
  return Object.defineProperty(event, 'keys', { value: keys }) as T & Traced
}

type Subscriber = (event: object, name: string | symbol) => unknown

/**
 * Tells those who listen, one by one: `channel.publish` would throw what a subscriber throws as an
 * uncaught exception, which ends the process. Where Node.js does not show them, it has to do.
 */
function publish(channel: Channel, event: object): void {
  if (!channel.hasSubscribers) return
  const { _subscribers: subscribers } = channel as { _subscribers?: readonly Subscriber[] }
  if (!Array.isArray(subscribers)) {
    channel.publish(event)
    return
  }
  for (const subscriber of subscribers as readonly Subscriber[]) {
    const failed = (error: unknown) => warn(subscriber, channel, error)
    try {
      const result = subscriber(event, channel.name)
      if (result instanceof Promise) result.catch(failed)
    } catch (error) {
      failed(error)
    }
  }
}

const warned = new WeakSet<Subscriber>()

/** Once for each subscriber: it may fail with every lock. */
function warn(subscriber: Subscriber, channel: Channel, error: unknown): void {
  if (warned.has(subscriber)) return
  warned.add(subscriber)
  const what = error instanceof Error ? error.message : String(error)
  process.emitWarning(`A subscriber of ${String(channel.name)} has thrown: ${what}`, {
    type: 'MutexTracingWarning',
    code: 'REDISMUTEX_SUBSCRIBER',
  })
}
