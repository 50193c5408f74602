import type { MutexErrorCode } from '../errors.js'

/** How often one kind of trouble is told. When a store is down, every request meets it. */
const INTERVAL = 1000

const told = new Map<string, { at: number; since: number }>()

/**
 * Reports what went wrong beside a response, as a process warning: there is nobody to throw it to.
 * At most one a second of each kind; the next one tells how many there were meanwhile.
 */
export function report(what: string, error: unknown): void {
  const { code, message } = describe(error)
  const kind = `${what} ${code}`
  const at = performance.now()
  const last = told.get(kind)
  if (last && at - last.at < INTERVAL) {
    last.since++
    return
  }
  const more = last?.since ? ` (and ${last.since} more since the last warning)` : ''
  told.set(kind, { at, since: 0 })
  process.emitWarning(`${what}: ${message}${more}`, { type: 'RequestLockWarning', code })
}

function describe(error: unknown): { code: MutexErrorCode | string; message: string } {
  const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown }
  return {
    code: typeof code === 'string' ? code : 'ERR_MUTEX_REQUEST',
    message: typeof message === 'string' ? message : String(error),
  }
}
