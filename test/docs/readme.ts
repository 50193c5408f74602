import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('../..', import.meta.url))

/** A fenced block of code. */
export interface Block {
  readonly language: string
  /** What a program calls itself in its first line: `// server.mjs`. */
  readonly file: string | undefined
  readonly code: string
}

/** A line of a table. */
export type Row = readonly string[]

/** A page of documentation, as its readers see it. */
export class Page {
  readonly text: string

  /** @param path from the root of the repository */
  constructor(readonly path: string) {
    this.text = readFileSync(join(root, path), 'utf8')
  }

  get blocks(): Block[] {
    return [...this.text.matchAll(/^```(\w*)\n(.*?)^```$/gms)].map(
      ([, language = '', code = '']) => ({
        language,
        file: code.match(/^\/\/ (\S+\.m?[jt]s)$/m)?.[1],
        code,
      }),
    )
  }

  /** The text outside of code. */
  get prose(): string {
    return this.text.replaceAll(/^```.*?^```$/gms, '').replaceAll(/`[^`\n]*`/g, '')
  }

  /** Where its links go. */
  get links(): string[] {
    return [...this.prose.matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = '']) => target)
  }

  /** What its headings are called in links. */
  get anchors(): string[] {
    return [...this.text.matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\w\s-]/g, '')
        .replaceAll(' ', '-'),
    )
  }

  /** The lines of all tables that begin with this title. */
  rows(title: string): Row[] {
    const tables = this.text.matchAll(/^\|(.*)\|\n\|[-|]+\|\n((?:\|.*\|\n)+)/gm)
    return [...tables]
      .filter(([, head = '']) => cells(head)[0] === title)
      .flatMap(([, , body = '']) => body.trimEnd().split('\n'))
      .map((line) => cells(line.slice(1, -1)))
  }
}

const cells = (line: string): Row => line.split('|').map((cell) => cell.trim())

/** The pages in the root, and in the folders of packages, examples and docs. */
export function pages(): Page[] {
  const folders = ['.', 'docs', 'examples']
  for (const parent of ['packages', 'examples']) {
    for (const entry of readdirSync(join(root, parent), { withFileTypes: true })) {
      if (entry.isDirectory()) folders.push(join(parent, entry.name))
    }
  }
  return folders
    .flatMap((folder) => readdirSync(join(root, folder)).map((name) => join(folder, name)))
    .filter((path) => path.endsWith('.md'))
    .map((path) => new Page(path))
}
