import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'

/** The four things that are asked of Redis, a script each. */
export type Verb = 'acquire' | 'release' | 'renew' | 'cancel'

export interface Script {
  readonly text: string
  readonly sha: string
  /** May it take a lock? */
  readonly takes?: boolean
  /** Is it of no use before a server that hangs? Not so what is held: it is to be kept, or given back. */
  readonly canWait?: boolean
}

/** A file of the package's `lua` folder. */
export const read = (name: string): string =>
  readFileSync(new URL(`../../../lua/${name}.lua`, import.meta.url), 'utf8')

/** A script of these parts. */
export function scriptOf(...parts: readonly string[]): Script {
  const text = parts.join('')
  return { text, sha: createHash('sha1').update(text).digest('hex') }
}

/** For what is left over by those who are alone. */
const shared = `${read('shared')}
local made
local function waiters()
  made = made or (function()
${read('waiters')}
  end)()
  return made
end

`

/** @param alone what is done first, where nobody waits */
const load = (alone: string, ...parts: string[]): Script =>
  scriptOf(read('items'), alone, shared, ...parts.map(read))

/** In the order in which those of one moment are sent: what makes room goes first. */
export const scripts: Readonly<Record<Verb, Script>> = {
  release: { ...load(read('release-alone'), 'ask', 'give-back', 'release'), takes: true },
  cancel: { ...load('', 'ask', 'give-back', 'cancel'), canWait: true },
  renew: load('', 'renew'),
  acquire: { ...load(read('acquire-alone'), 'ask', 'acquire'), takes: true, canWait: true },
}
