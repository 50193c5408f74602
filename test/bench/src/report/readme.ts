import { metrics } from '../metrics.js'
import type { Outcome } from '../results.js'
import { shownWithSpread } from './format.js'
import type { Facts } from './page.js'
import { markdownTable } from './table.js'

const BEGIN = '<!-- written by pnpm bench -->'
const END = '<!-- end -->'

/** What the README quotes. */
const quoted = ['commands', 'p99', 'longest', 'locks'] as const

/** Puts what the run says of the scenario in the README in place of what is there. */
export function withFigures(readme: string, { entries }: Outcome, { rounds }: Facts): string {
  const from = readme.indexOf(BEGIN)
  const to = readme.indexOf(END, from)
  if (from < 0 || to < 0) throw new Error(`The README has no place for figures: ${BEGIN} … ${END}`)
  const table = markdownTable([
    [
      '',
      ...quoted.map((name) => {
        const { label, unit } = metrics[name]
        return unit === 'ms' ? `${label}, ms` : label + unit
      }),
    ],
    ...entries.map((entry) => [
      entry.contestant.name,
      ...quoted.map((name) => shownWithSpread(entry.median(name), entry.all(name))),
    ]),
  ])
  const words =
    'Side by side on one machine: 4 processes × 4 loops on one key, each lock held for 5 ms, everything ' +
    'else at its defaults, but for a minute or no limit to waiting and the poll of those named “10 ms”. ' +
    `The median of ${rounds} rounds, the lowest and the highest; *commands* are those that clients sent. The rest of ` +
    'what `npx -y pnpm@12 bench` measures, and on what machine, is in ' +
    '[docs/performance.md](docs/performance.md).'
  return `${readme.slice(0, from + BEGIN.length)}\n\n${words}\n\n${table}\n\n${readme.slice(to)}`
}
