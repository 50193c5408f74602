// What the demo claims is counted here, from the times that the servers took.

/** How many were at work at the same moment, at most. */
export function mostAtOnce(withdrawals) {
  const atWork = (moment) =>
    withdrawals.filter(({ began, ended }) => began <= moment && moment < ended).length
  return Math.max(...withdrawals.map(({ began }) => atWork(began)))
}

/** How long they were at work, all together, in milliseconds. */
export function workOf(withdrawals) {
  return withdrawals.reduce((sum, { began, ended }) => sum + ended - began, 0)
}

/** From the first arrival to the last end, in milliseconds. */
export function timeOf(withdrawals) {
  const { from, to } = spanOf(withdrawals)
  return to - from
}

export function spanOf(withdrawals) {
  return {
    from: Math.min(...withdrawals.map(({ arrived }) => arrived)),
    to: Math.max(...withdrawals.map(({ ended }) => ended)),
  }
}
