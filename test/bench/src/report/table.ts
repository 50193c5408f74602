import type { Judgement } from '../goals.js'
import { type MetricName, metrics } from '../metrics.js'
import { bestPeer, type Outcome, ratio } from '../results.js'
import { shown, shownWithSpread } from './format.js'

export type Row = readonly string[]

/** One row for each contestant: the medians with their spread, and the two ratios. */
export function tableOf(outcome: Outcome): readonly [Row, ...Row[]] {
  const { scenario, entries, floor } = outcome
  const [headline] = scenario.metrics
  const best = bestPeer(outcome, headline)
  const head = ['', ...scenario.metrics.map(heading)]
  if (floor) head.push(`× ${floor.contestant.name}`)
  if (best) head.push('× best peer')
  const rows = entries.map((entry) => {
    const row = [entry.contestant.name]
    for (const metric of scenario.metrics) {
      row.push(shownWithSpread(entry.median(metric), entry.all(metric)))
    }
    if (floor) row.push(shown(ratio(entry, floor, headline)))
    if (best) row.push(shown(ratio(entry, best, headline)))
    return row
  })
  return [head, ...rows]
}

function heading(name: MetricName): string {
  const { label, unit } = metrics[name]
  if (unit === '') return label
  return unit.startsWith('/') ? label + unit : `${label}, ${unit}`
}

/** For a terminal: in columns. */
export function columns([head, ...rows]: readonly [Row, ...Row[]]): string {
  const widths = head.map((_, index) =>
    Math.max(...[head, ...rows].map((row) => row[index]?.length ?? 0)),
  )
  const line = (row: Row) =>
    row
      .map((cell, index) => cell[index === 0 ? 'padEnd' : 'padStart'](widths[index] ?? 0))
      .join('  ')
  return [line(head), widths.map((width) => '─'.repeat(width)).join('  '), ...rows.map(line)].join(
    '\n',
  )
}

export function markdownTable([head, ...rows]: readonly [Row, ...Row[]]): string {
  const line = (row: Row) => `| ${row.join(' | ')} |`
  const rule = head.map((_, index) => (index === 0 ? '---' : '---:'))
  return [head, rule, ...rows].map(line).join('\n')
}

/** One row for each goal. */
export function goalsTable(judgements: readonly Judgement[]): readonly [Row, ...Row[]] {
  const rows = judgements.map(({ goal, value, met }) => [
    goal.scenario,
    goal.what,
    `${goal.bound} ${goal.limit}`,
    shown(value),
    met ? 'met' : 'MISSED',
  ])
  return [['scenario', 'what', 'goal', 'measured', ''], ...rows]
}
