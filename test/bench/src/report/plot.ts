import { type GroupMark, parse, type Spec, View } from 'vega'
import { metrics } from '../metrics.js'
import type { Entry, Outcome } from '../results.js'
import { shown } from './format.js'

const ROW = 20
const NAMES = 165
const PANEL = 290
const VALUES = 60
const GAP = 44
const COLUMNS = 2
const COLOURS = { ours: '#d1490c', floor: '#111827', peer: '#8193ab' }
const FONT = 'system-ui, sans-serif'

/**
 * A panel for each scenario: a dot for each contestant's median on a logarithmic scale, a line from
 * the lowest to the highest of all rounds, and ours in colour.
 */
export function plot(outcomes: readonly Outcome[]): Promise<string> {
  const heights = Array.from({ length: COLUMNS }, () => 0)
  const panels = outcomes.map((outcome) => {
    // The next panel goes where there is most room.
    const column = heights.indexOf(Math.min(...heights))
    const y = heights[column] ?? 0
    heights[column] = y + outcome.entries.length * ROW + GAP + 36
    return panel(outcome, column * (NAMES + PANEL + VALUES) + NAMES, y + GAP)
  })
  const spec: Spec = {
    $schema: 'https://vega.github.io/schema/vega/v6.json',
    background: 'white',
    padding: 16,
    width: COLUMNS * (NAMES + PANEL + VALUES),
    height: Math.max(...heights),
    marks: panels,
    config: { title: { font: FONT }, text: { font: FONT }, axis: { labelFont: FONT } },
  }
  return new View(parse(spec), { renderer: 'none' }).toSVG()
}

function panel({ scenario, entries }: Outcome, x: number, y: number): GroupMark {
  const [headline] = scenario.metrics
  const { label, unit, better } = metrics[headline]
  const values = entries.map((entry) => row(entry, headline)).filter(({ value }) => value > 0)
  const height = entries.length * ROW
  const middle = { scale: 'y', field: 'name', band: 0.5 }
  const colour = { field: 'colour' }
  return {
    type: 'group',
    encode: {
      enter: {
        x: { value: x },
        y: { value: y },
        width: { value: PANEL },
        height: { value: height },
      },
    },
    // What the grid goes by.
    signals: [
      { name: 'width', update: `${PANEL}` },
      { name: 'height', update: `${height}` },
    ],
    title: {
      text: scenario.title,
      subtitle: `${label}${unit && (unit.startsWith('/') ? unit : `, ${unit}`)}: ${better} is better`,
      anchor: 'start',
      frame: 'group',
      dx: -NAMES,
      offset: 6,
      fontSize: 13,
      subtitleColor: '#6b7280',
      subtitleFont: FONT,
    },
    data: [{ name: 'rows', values }],
    scales: [
      {
        name: 'x',
        type: 'log',
        domain: domainOf(values),
        range: [0, PANEL],
      },
      {
        name: 'y',
        type: 'band',
        domain: entries.map(({ contestant }) => contestant.name),
        range: [0, height],
      },
    ],
    axes: [
      {
        orient: 'bottom',
        scale: 'x',
        grid: true,
        gridColor: '#eef0f3',
        zindex: 0,
        domain: false,
        ticks: false,
        labelColor: '#6b7280',
        format: '~s',
        tickCount: 4,
        labelOverlap: true,
      },
      { orient: 'left', scale: 'y', domain: false, ticks: false, labelFontSize: 12, labelLimit: 0 },
    ],
    marks: [
      {
        type: 'rule',
        from: { data: 'rows' },
        encode: {
          enter: {
            x: { scale: 'x', field: 'lowest' },
            x2: { scale: 'x', field: 'highest' },
            y: middle,
            stroke: colour,
            strokeWidth: { value: 3 },
            opacity: { value: 0.4 },
          },
        },
      },
      {
        type: 'symbol',
        from: { data: 'rows' },
        encode: {
          enter: {
            x: { scale: 'x', field: 'value' },
            y: middle,
            fill: colour,
            size: { value: 70 },
          },
        },
      },
      {
        type: 'text',
        from: { data: 'rows' },
        encode: {
          enter: {
            x: { scale: 'x', field: 'highest', offset: 8 },
            y: middle,
            text: { field: 'text' },
            fill: colour,
            fontWeight: { field: 'weight' },
            fontSize: { value: 11 },
            baseline: { value: 'middle' },
          },
        },
      },
    ],
  }
}

function row(entry: Entry, metric: keyof typeof metrics) {
  const { name, kind } = entry.contestant
  const value = entry.median(metric)
  const all = entry.all(metric)
  return {
    name,
    value,
    lowest: Math.max(Math.min(...all), value / 1000),
    highest: Math.max(...all),
    text: shown(value),
    colour: COLOURS[kind],
    weight: kind === 'ours' ? 'bold' : 'normal',
  }
}

/** From below the lowest to above the highest, at least a power of ten. */
function domainOf(rows: readonly { lowest: number; highest: number }[]): [number, number] {
  const lowest = Math.min(...rows.map(({ lowest }) => lowest)) / 1.5
  const highest = Math.max(...rows.map(({ highest }) => highest)) * 1.5
  return rows.length === 0 ? [1, 10] : [Math.min(lowest, highest / 10), highest]
}
