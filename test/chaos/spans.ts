/** A stretch of time. */
export interface Span {
  readonly from: number
  readonly to: number
}

export const touches = (a: Span, b: Span): boolean => a.from <= b.to && b.from <= a.to

/** The same stretches in order, those that touch made one. */
export function union(spans: readonly Span[]): Span[] {
  const merged: { from: number; to: number }[] = []
  for (const span of [...spans].sort((a, b) => a.from - b.from)) {
    const last = merged.at(-1)
    if (last && span.from <= last.to) last.to = Math.max(last.to, span.to)
    else if (span.to > span.from) merged.push({ ...span })
  }
  return merged
}

/** What is left of `spans` without `others`. */
export function without(spans: readonly Span[], others: readonly Span[]): Span[] {
  const taken = union(others)
  const left: Span[] = []
  let first = 0
  for (const span of union(spans)) {
    let { from } = span
    while (first < taken.length && (taken[first] as Span).to <= from) first++
    for (let index = first; index < taken.length; index++) {
      const other = taken[index] as Span
      if (other.from >= span.to) break
      if (other.from > from) left.push({ from, to: other.from })
      from = Math.max(from, other.to)
    }
    if (from < span.to) left.push({ from, to: span.to })
  }
  return left
}

/** How much of `spans` lies within `frame`. */
export function lengthWithin(spans: readonly Span[], frame: Span): number {
  let length = 0
  for (const { from, to } of spans) {
    length += Math.max(0, Math.min(to, frame.to) - Math.max(from, frame.from))
  }
  return length
}
