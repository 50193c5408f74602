/**
 * Milliseconds on a clock that all processes of this machine share: CLOCK_MONOTONIC on Linux. What
 * one process has noted before another can be told from it. Where it is not shared, as between
 * machines, `isShared` tells.
 */
export const clock = (): number => Number(process.hrtime.bigint()) / 1e6

/** Was a reading that another process has sent taken between two of ours? */
export const isShared = (before: number, reading: number, after: number): boolean =>
  before <= reading && reading <= after
