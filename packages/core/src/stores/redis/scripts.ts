import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'

/** The four things that are asked of Redis, a script each. */
export type Verb = 'acquire' | 'release' | 'renew' | 'cancel'

export interface Script {
  readonly text: string
  readonly sha: string
}

const read = (name: string): string =>
  readFileSync(new URL(`../../../lua/${name}.lua`, import.meta.url), 'utf8')

const shared = `${read('shared')}
local made
local function waiters()
  made = made or (function()
${read('waiters')}
  end)()
  return made
end

`

function load(...parts: string[]): Script {
  const text = shared + parts.map(read).join('')
  return { text, sha: createHash('sha1').update(text).digest('hex') }
}

export const scripts: Readonly<Record<Verb, Script>> = {
  acquire: load('ask', 'acquire'),
  release: load('ask', 'release'),
  renew: load('renew'),
  cancel: load('cancel'),
}
