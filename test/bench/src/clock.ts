/** What to add to `performance.now()` for a time in ms that all processes of a machine agree on. */
const offset = Number(process.hrtime.bigint()) / 1e6 - performance.now()

/** The machine's monotonic clock, in ms: the same in all processes. */
export function sharedNow(): number {
  return performance.now() + offset
}
