/** Three digits that count, with a mark for thousands. */
export function shown(value: number): string {
  if (!Number.isFinite(value)) return '–'
  if (value === 0) return '0'
  const size = Math.abs(value)
  if (size >= 100) return Math.round(value).toLocaleString('en-US')
  return value.toFixed(size >= 10 ? 1 : size >= 0.1 ? 2 : 3)
}

/** The median and, in brackets, the lowest and the highest of all rounds. */
export function shownWithSpread(median: number, all: readonly number[]): string {
  if (all.length < 2 || !Number.isFinite(median)) return shown(median)
  return `${shown(median)} (${shown(Math.min(...all))}–${shown(Math.max(...all))})`
}

/** What was calculated: two digits that count. */
export function rounded(value: number): string {
  return Number(value.toPrecision(2)).toLocaleString('en-US')
}
