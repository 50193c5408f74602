import { type Judgement, judge } from '../goals.js'
import type { Reach } from '../reach/measure.js'
import { reachSection } from '../reach/section.js'
import type { Outcome } from '../results.js'
import { goalsTable, markdownTable, tableOf } from './table.js'

export interface Facts {
  readonly command: string
  readonly date: string
  readonly environment: readonly string[]
  readonly rounds: number
  /** In s. */
  readonly duration: number
}

/** What is said of a run in the documentation. */
export function page(outcomes: readonly Outcome[], reach: Reach, facts: Facts): string {
  const judgements = judge(outcomes)
  return `# Performance

\`${facts.command}\` has measured all of this in one run and written this page, on ${facts.date}:

${facts.environment.map((line) => `- ${line}`).join('\n')}

![Each scenario as a panel: the median of each library on a logarithmic scale, and the spread](performance.svg)

## How it is measured

- All contestants of a scenario run in turn, in ${facts.rounds} rounds, each round beginning with another one; each
  in processes of its own and on a Redis of its own, which stay for all rounds, for ${facts.duration} s each time.
- Before the first round each runs for a while unmeasured, web servers so long that their code is
  compiled: it takes them about 10 s. Who isn't measured rests; the load on a web server is stopped.
- Shown are the median of all rounds and, in brackets, the lowest and the highest. Ratios are the
  medians of those within each round: other machines of the same host make this one faster and slower.
- *Wait* is from asking for a lock to having it, of all locks; those that were still waited for at the end
  count, too.
- *Commands* are those that clients send, by \`INFO commandstats\`. What scripts call inside Redis is
  counted there under other names, and shows in Redis's CPU time.
- *CPU* is of the processes that lock (\`process.cpuUsage\`) and of Redis (\`INFO cpu\`), in all that they do.
- *Fairness* is Jain's index over the loops: 1 when all got as many locks.
- *Two plain commands* are the floor: \`SET NX PX\` and a compare-and-delete script, on the same client. Floor
  and best peer are compared by the first column.

## Goals

${markdownTable(goalsTable(judgements))}

${missed(judgements)}${outcomes.map(section).join('\n')}
## The contestants

${contestantsOf(outcomes)}

${reachSection(reach)}`
}

/** Why those are missed that are. */
function missed(judgements: readonly Judgement[]): string {
  const scenarios = new Map<string, string[]>()
  for (const { goal, met } of judgements) {
    if (met || goal.why === undefined) continue
    const names = scenarios.get(goal.why) ?? []
    scenarios.set(goal.why, names)
    if (!names.includes(`\`${goal.scenario}\``)) names.push(`\`${goal.scenario}\``)
  }
  if (scenarios.size === 0) return ''
  const lines = [...scenarios].map(([why, names]) => `- ${names.join(', ')}: ${why}`)
  return `What stands in the way of those that are missed, and what would help:\n\n${lines.join('\n')}\n\n`
}

function section(outcome: Outcome): string {
  const { title, name, about } = outcome.scenario
  return `## ${title}

\`${name}\`: ${about}

${markdownTable(tableOf(outcome))}
`
}

/** How each is set up. */
function contestantsOf(outcomes: readonly Outcome[]): string {
  const all = new Map(
    outcomes.flatMap(({ entries }) =>
      entries.map(({ contestant }) => [contestant.name, contestant]),
    ),
  )
  return [...all.values()].map(({ name, about }) => `- **${name}**: ${about}`).join('\n')
}
