import { randomUUID } from 'node:crypto'
import { connect } from './connection.js'
import type { Contestant } from './contestant.js'

const DELETE_IF_MINE = `
  if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end
  return 0
`

/** What every lock has to do at the least. It can't wait: for scenarios in which all is free. */
export const floor: Contestant = {
  name: 'two plain commands',
  kind: 'floor',
  store: 'redis',
  about: 'SET NX PX and compare-and-delete in a script, without anything around them',
  sends: ['set', 'evalsha'],
  async open(port) {
    const redis = await connect(port)
    const sha = String(await redis.script('LOAD', DELETE_IF_MINE))
    const instance = randomUUID()
    let owners = 0
    return {
      acquire: async (key) => {
        const owner = `${instance}|${++owners}`
        if ((await redis.set(key, owner, 'PX', 10_000, 'NX')) === null) {
          throw new Error(`${key} is held: two plain commands can't wait`)
        }
        return () => redis.evalsha(sha, 1, key, owner)
      },
      close: async () => redis.disconnect(),
    }
  },
}
