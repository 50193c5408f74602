/** The middle of some figures: of an even number of them, the mean of the two in the middle. */
export function median(figures: readonly number[]): number {
  const sorted = [...figures].sort((a, b) => a - b)
  const middle = sorted.length / 2
  const upper = sorted[Math.floor(middle)]
  const lower = sorted[Math.ceil(middle) - 1]
  if (upper === undefined || lower === undefined) return Number.NaN
  return (upper + lower) / 2
}

/**
 * The smallest figure that at least `percent` of all do not exceed (nearest rank).
 * @param sorted lowest first
 */
export function percentile(sorted: ArrayLike<number>, percent: number): number {
  const rank = Math.max(1, Math.ceil((percent / 100) * sorted.length))
  return sorted[rank - 1] ?? Number.NaN
}

/**
 * Jain's fairness index: 1 when all get the same, 1/n when one of n gets everything.
 * Source: https://arxiv.org/abs/cs/9809099
 */
export function fairness(shares: readonly number[]): number {
  let sum = 0
  let squares = 0
  for (const share of shares) {
    sum += share
    squares += share ** 2
  }
  return squares === 0 ? Number.NaN : sum ** 2 / (shares.length * squares)
}

/** The sums of each `width` figures in a row. */
export function slidingSums(figures: ArrayLike<number>, width: number): Float64Array {
  const sums = new Float64Array(Math.max(0, figures.length - width + 1))
  let sum = 0
  for (let index = 0; index < figures.length; index++) {
    sum += figures[index] as number
    if (index >= width) sum -= figures[index - width] as number
    if (index >= width - 1) sums[index - width + 1] = sum
  }
  return sums
}
