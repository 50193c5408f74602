import { createHash } from 'node:crypto'
import { shown } from '../../options.js'

/** The Redis keys of one mutex, without ioredis's own prefix. */
export interface Names {
  readonly lock: string
  readonly queue: string
}

const QUEUE = 'redismutex:queue:'
const FENCE = 'redismutex:fence'
const RESERVED = 'redismutex:'
const HASHED = 'sha256:'
const LONGEST = 256

/** What Redis Cluster hashes of a name, if not all of it. https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags */
function tagOf(name: string): string | undefined {
  const open = name.indexOf('{')
  if (open < 0) return undefined
  const close = name.indexOf('}', open)
  return close > open + 1 ? name.slice(open + 1, close) : undefined
}

/** Braces that would cut a tag of ours short, or begin one too early. */
const hasStrayBraces = (text: string): boolean =>
  (text.includes('{') || text.includes('}')) && tagOf(text) === undefined

/** @throws TypeError for a prefix that could not keep a mutex's names in one slot, or our own apart */
export function assertPrefix(option: string, prefix: unknown): asserts prefix is string {
  const fail = (rule: string): never => {
    throw new TypeError(`${option} must ${rule}, got ${shown(prefix)}`)
  }
  if (typeof prefix !== 'string' || !prefix.isWellFormed()) return fail('be a well-formed string')
  if (prefix.length > LONGEST) fail(`have at most ${LONGEST} characters`)
  if (prefix.startsWith(RESERVED)) fail(`not begin with '${RESERVED}'`)
  if (hasStrayBraces(prefix)) fail('have no braces but those of a hash tag, as in {app}')
}

/** @throws TypeError for a prefix of the client's that no mutex on a Cluster could have in one slot */
export function assertClusterPrefix(prefix: string): void {
  if (!hasStrayBraces(prefix)) return
  throw new TypeError(
    `the keyPrefix of a Cluster client must have no braces but those of a hash tag, as in {app}, got ${shown(prefix)}`,
  )
}

/**
 * The lock's name for a key. A key that is too long, that would break the names apart on a Cluster,
 * or that looks like one of ours is stored under its hash.
 * @throws TypeError for such a key when `prefix` is empty: other libraries would not know its name
 */
export function lockName(prefix: string, key: string): string {
  const name = prefix + key
  const strange =
    (name.length * 3 > LONGEST && Buffer.byteLength(key) > LONGEST) ||
    hasStrayBraces(key) ||
    key.startsWith(HASHED) ||
    name.startsWith(RESERVED)
  if (!strange) return name
  if (prefix === '') {
    throw new TypeError(
      `with keyPrefix '' a key must have at most ${LONGEST} bytes, no braces but a hash tag, and must not begin with '${HASHED}' or '${RESERVED}'`,
    )
  }
  return prefix + HASHED + createHash('sha256').update(key).digest('hex')
}

/**
 * What to append to a name to have it in one slot with a lock, whatever that is called, and to nothing
 * else: its tag is the lock's own, or else the lock's whole name as Redis sees it.
 */
export function besideOf(lock: string, clientPrefix: string): string {
  const seen = clientPrefix + lock
  const tag = tagOf(seen)
  return tag === undefined ? `{${seen}}` : `{${tag}}${seen}`
}

/** The names of a mutex, all in one slot. */
export function namesOf(lock: string, clientPrefix: string): Names {
  return { lock, queue: QUEUE + besideOf(lock, clientPrefix) }
}

/**
 * The name of the fence of a mutex. One serves all locks of a server; where there are slots, it would
 * have to be in every one, so each mutex has its own.
 */
export function fenceOf({ queue }: Names, inSlots: boolean): string {
  return inSlots ? `${FENCE}:${queue.slice(QUEUE.length)}` : FENCE
}
