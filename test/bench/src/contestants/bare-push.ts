import { once } from 'node:events'
import { connect } from './connection.js'
import type { Contestant } from './contestant.js'

const PASS_ON = `
  redis.call('del', KEYS[1])
  redis.call('set', KEYS[1], ARGV[1], 'px', 60000)
  return redis.call('publish', ARGV[2], ARGV[1])
`
const CHANNEL = 'passed on'

/** What a release that wakes another process has to do at the least. It works for two processes only. */
export const barePush: Contestant = {
  name: 'a bare push',
  kind: 'floor',
  store: 'redis',
  about:
    'the least that wakes another process: DEL, SET and PUBLISH in a script, and its subscriber goes on when it hears of it; without a queue, an owner or a token',
  sends: ['evalsha', 'set', 'subscribe'],
  async open(port) {
    const [redis, subscriber] = await Promise.all([connect(port), connect(port)])
    const sha = String(await redis.script('LOAD', PASS_ON))
    await subscriber.subscribe(CHANNEL)
    return {
      acquire: async (key) => {
        const told = once(subscriber, 'message')
        const take = () => redis.set(key, 'taken', 'PX', 60_000, 'GET')
        if ((await take()) === 'taken') {
          await told
          // Afterwards, since it takes no part in waking: whoever comes next is to find it taken.
          setImmediate(take)
        }
        return () => redis.evalsha(sha, 1, key, 'passed on', CHANNEL)
      },
      close: async () => {
        subscriber.disconnect()
        redis.disconnect()
      },
    }
  },
}
