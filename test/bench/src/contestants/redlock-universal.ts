import { connect } from './connection.js'
import type { Contestant } from './contestant.js'

function contestant(name: string, retryDelay: number): Contestant {
  return {
    name,
    kind: 'peer',
    store: 'redis',
    about:
      `createLock() (polls every ${retryDelay} ms), tries without limit instead of 4 times, ` +
      'without the circuit breaker, which would cost a PING for each new key',
    sends: ['set', 'evalsha', 'eval', 'script|load', 'ping'],
    async open(port) {
      const { createLock, IoredisAdapter } = await import('redlock-universal')
      const redis = await connect(port)
      const adapter = new IoredisAdapter(redis)
      const shared = {
        adapter,
        retryDelay,
        retryAttempts: Number.MAX_SAFE_INTEGER,
        circuitBreaker: false,
      }
      return {
        acquire: async (key) => {
          const lock = createLock({ ...shared, key })
          const handle = await lock.acquire()
          return () => lock.release(handle)
        },
        close: async () => redis.disconnect(),
      }
    },
  }
}

export const redlockUniversal: Contestant = contestant('redlock-universal', 100)

export const redlockUniversalPolling: Contestant = contestant('redlock-universal, 10 ms', 10)
