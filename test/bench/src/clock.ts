/** The machine's monotonic clock, in ms: the same in all processes, as `performance.now()` is not. */
export function sharedNow(): number {
  return Number(process.hrtime.bigint()) / 1e6
}
