/** What a key is made to be: one key, several, or none. */
export type Keys = string | readonly string[] | null | undefined

/** Names what a request is to hold; `null` and `undefined` mean nothing. */
export type KeyFrom<Req> = (request: Req) => Keys | PromiseLike<Keys>

/**
 * What `keyFrom` gave, checked: nothing to lock is `undefined`.
 *
 * The message tells the type only: keys come from clients, and errors go to logs and to them.
 *
 * @throws TypeError for an empty key or none that is a string: a bug in the app, not the client's
 */
export function checkedKeys(named: unknown): string | readonly string[] | undefined {
  if (typeof named === 'string' && named !== '') return named
  if (named === null || named === undefined) return undefined
  if (!Array.isArray(named)) throw wrongKey(named, '')
  for (const key of named) {
    if (typeof key !== 'string' || key === '') throw wrongKey(key, ' in its array')
  }
  return named.length === 0 ? undefined : named
}

function wrongKey(key: unknown, where: string): TypeError {
  return new TypeError(
    'keyFrom must give a non-empty string, an array of them, or null or undefined for no lock; ' +
      `got ${kindOf(key)}${where}`,
  )
}

function kindOf(value: unknown): string {
  if (value === '') return 'an empty string'
  if (value === null) return 'null'
  if (value === undefined) return 'undefined'
  return `${typeof value === 'object' ? 'an' : 'a'} ${typeof value}`
}
