import { readFileSync, writeFileSync } from 'node:fs'
import { type DeploymentName, deploymentNames } from './deployment.js'
import type { Outcome } from './run.js'

const BEGIN = '<!-- figures: npx -y pnpm@12 chaos --report -->'
const END = '<!-- end of figures -->'

/** Writes the figures of all results in a file into a page, between two marks. */
export function report(results: string, page: URL): void {
  const outcomes = readFileSync(results, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Outcome)
    .sort((a, b) => rank(a) - rank(b))
  const text = readFileSync(page, 'utf8')
  const [before, rest] = text.split(BEGIN)
  const after = rest?.split(END)[1]
  if (after === undefined) throw new Error(`${page} has no place for figures: ${BEGIN} … ${END}`)
  writeFileSync(page, `${before}${BEGIN}\n\n${figures(outcomes)}\n\n${END}${after}`)
}

const rank = ({ deployment, duration, seed }: Outcome): number =>
  deploymentNames.indexOf(deployment) * 1e12 - duration * 1e3 + seed

function figures(outcomes: readonly Outcome[]): string {
  return [
    'What was asked, and what went wrong:',
    table(
      ['', 'seed', 'time', 'asked', 'held', 'writes', 'refused by token', 'faults', 'longest wait'],
      outcomes.map((outcome) => [
        outcome.deployment,
        outcome.seed,
        time(outcome.duration),
        outcome.asked,
        outcome.held,
        outcome.writes,
        outcome.writesRefused,
        sum(Object.values(outcome.faults)),
        `${Math.round(outcome.longestWait)} ms`,
      ]),
    ),
    'What may not be, and what no lock there prevents:',
    table(
      [
        ...['', 'seed', 'time', 'overlaps', 'token regressions', 'writes out of order'],
        ...['waits and stalls', 'losses without a reason', 'leftovers'],
        ...['*overlaps after data were lost*', '*while the holder was stopped*'],
      ],
      outcomes.map((outcome) => {
        const of = (...rules: string[]): number =>
          outcome.violations.filter(({ rule }) => rules.includes(rule)).length
        return [
          outcome.deployment,
          outcome.seed,
          time(outcome.duration),
          ...[of('overlap'), of('token'), of('write'), of('wait', 'stall'), of('loss'), of('end')],
          outcome.overlapsByLoss,
          outcome.overlapsByStall,
        ]
      }),
    ),
    'Faults by kind:',
    faults(outcomes),
  ].join('\n\n')
}

function faults(outcomes: readonly Outcome[]): string {
  const names = deploymentNames.filter((name) => of(outcomes, name).length > 0)
  const kinds = [...new Set(outcomes.flatMap((outcome) => Object.keys(outcome.faults)))].sort()
  return table(
    ['', ...names],
    kinds.map((kind) => [
      kind,
      ...names.map((name) => sum(of(outcomes, name).map((outcome) => outcome.faults[kind] ?? 0))),
    ]),
  )
}

const of = (outcomes: readonly Outcome[], name: DeploymentName): Outcome[] =>
  outcomes.filter(({ deployment }) => deployment === name)

const sum = (numbers: readonly number[]): number => numbers.reduce((total, one) => total + one, 0)

const time = (ms: number): string => (ms % 60_000 === 0 ? `${ms / 60_000} min` : `${ms / 1000} s`)

function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const line = (cells: readonly (string | number)[]): string => `| ${cells.join(' | ')} |`
  const rule = head.map((_, index) => (index === 0 ? '---' : '---:'))
  return [line(head), line(rule), ...rows.map(line)].join('\n')
}
