/**
 * Every time in this library is a number of milliseconds on the process's monotonic clock.
 * Wall clocks are never compared, neither with each other nor with Redis's.
 */
export const now = (): number => performance.now()

/** What a timer can carry: `setTimeout` fires at once for more. */
export const LONGEST_TIMER = 2_147_483_647

/** What to set a timer to that is to ring at a time, or at once if that is over; as far as it can. */
export const timerUntil = (at: number): number =>
  Math.min(Math.max(Math.ceil(at - now()), 0), LONGEST_TIMER)

/**
 * How much sooner than the store a process takes a lease of `ms` for over: clocks run at different
 * speeds, and the store counts from when it executed the command.
 */
export const drift = (ms: number): number => ms * 0.01 + 2
