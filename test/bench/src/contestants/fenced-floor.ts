import { randomUUID } from 'node:crypto'
import { connect } from './connection.js'
import type { Contestant } from './contestant.js'

const SET_WITH_TOKEN = `
  if not redis.call('set', KEYS[1], ARGV[1], 'nx', 'px', ARGV[2]) then return 0 end
  local clock = redis.call('time')
  return clock[1] * 1000000 + clock[2]
`

const DELETE_IF_MINE = `
  if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end
  return 0
`

/** What a lock with a fencing token has to do at the least: plain commands give none that rises. */
export const fencedFloor: Contestant = {
  name: 'two small scripts',
  kind: 'floor',
  store: 'redis',
  about:
    'the least that gives a fencing token: SET NX PX and TIME in a script, and the same compare-and-delete',
  sends: ['evalsha'],
  async open(port) {
    const redis = await connect(port)
    const [set, remove] = (await Promise.all(
      [SET_WITH_TOKEN, DELETE_IF_MINE].map((text) => redis.script('LOAD', text) as Promise<string>),
    )) as [string, string]
    const instance = randomUUID()
    let owners = 0
    return {
      acquire: async (key) => {
        const owner = `${instance}|${++owners}`
        if (Number(await redis.evalsha(set, 1, key, owner, 10_000)) === 0) {
          throw new Error(`${key} is held: two small scripts can't wait`)
        }
        return () => redis.evalsha(remove, 1, key, owner)
      },
      close: async () => redis.disconnect(),
    }
  },
}
