import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { RedisClient } from './client.js'

/** The four things that are asked of Redis, a script each. */
export type Verb = 'acquire' | 'release' | 'renew' | 'cancel'

interface Script {
  readonly text: string
  readonly sha: string
}

const read = (name: string): string =>
  readFileSync(new URL(`../../../lua/${name}.lua`, import.meta.url), 'utf8')

const shared = read('queue')

function load(verb: Verb): Script {
  const text = shared + read(verb)
  return { text, sha: createHash('sha1').update(text).digest('hex') }
}

const scripts: Readonly<Record<Verb, Script>> = {
  acquire: load('acquire'),
  release: load('release'),
  renew: load('renew'),
  cancel: load('cancel'),
}

/** Runs a script; a server that does not know it yet is sent its text. */
export async function run(
  client: RedisClient,
  verb: Verb,
  keys: readonly string[],
  args: readonly string[],
): Promise<unknown> {
  const { sha, text } = scripts[verb]
  try {
    return await client.evalsha(sha, keys.length, ...keys, ...args)
  } catch (error) {
    if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw error
    return client.eval(text, keys.length, ...keys, ...args)
  }
}
