import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Reach } from '../reach/measure.js'
import type { Outcome } from '../results.js'
import { type Facts, page } from './page.js'
import { plot } from './plot.js'
import { withFigures } from './readme.js'

/** Writes the page and its plot, and what the README quotes; gives the names of the files. */
export async function write(
  outcomes: readonly Outcome[],
  reach: Reach,
  facts: Facts,
): Promise<string[]> {
  const root = workspace(import.meta.url)
  const files = new Map([
    ['docs/performance.md', page(outcomes, reach, facts)],
    ['docs/performance.svg', await plot(outcomes)],
  ])
  const quoted = outcomes.find(({ scenario }) => scenario.name === '4x4-waiters-5-ms')
  if (quoted) {
    files.set(
      'README.md',
      withFigures(readFileSync(join(root, 'README.md'), 'utf8'), quoted, facts),
    )
  }
  for (const [name, text] of files) writeFileSync(join(root, name), text)
  return [...files.keys()]
}

/** This runs from its sources and from what was built of them. */
function workspace(url: string): string {
  let folder = dirname(fileURLToPath(url))
  while (!existsSync(join(folder, 'pnpm-workspace.yaml'))) {
    if (folder === dirname(folder)) throw new Error('The benchmark runs in its workspace only')
    folder = dirname(folder)
  }
  return folder
}
