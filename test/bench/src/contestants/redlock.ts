import type { Settings } from 'redlock'
import { connect } from './connection.js'
import type { Contestant } from './contestant.js'

const LEASE = 10_000

/** Not of the whole Redlock: a release of what has expired would be tried for ever as well. */
const unlimited = { retryCount: -1 }

function contestant(name: string, poll: string, settings: Partial<Settings>): Contestant {
  return {
    name,
    kind: 'peer',
    store: 'redis',
    about: `acquire() for 10 s (polls every ${poll}), tries without limit instead of 10 times`,
    sends: ['evalsha', 'eval'],
    async open(port) {
      const { default: Redlock } = await import('redlock')
      const redis = await connect(port)
      const redlock = new Redlock([redis], settings)
      return {
        acquire: async (key) => {
          const lock = await redlock.acquire([key], LEASE, unlimited)
          return () => lock.release()
        },
        close: async () => redis.disconnect(),
      }
    },
  }
}

export const redlock: Contestant = contestant('redlock 5', '200 ± 100 ms', {})

export const redlockPolling: Contestant = contestant('redlock 5, 10 ms', '10 ± 5 ms', {
  retryDelay: 10,
  retryJitter: 5,
})
