import type { Mutex } from 'async-mutex'
import type { Contestant } from './contestant.js'

/** One mutex for each key that is in use, as has to be written around it for keys. */
export const asyncMutex: Contestant = {
  name: 'async-mutex',
  kind: 'peer',
  store: 'memory',
  about: 'a Map of Mutex, one for each key in use; within one process only',
  sends: [],
  async open() {
    const { Mutex } = await import('async-mutex')
    const mutexes = new Map<string, Mutex>()
    return {
      acquire: async (key) => {
        let mutex = mutexes.get(key)
        if (!mutex) {
          mutex = new Mutex()
          mutexes.set(key, mutex)
        }
        const release = await mutex.acquire()
        return () => {
          release()
          if (!mutex.isLocked()) mutexes.delete(key)
        }
      },
      close: async () => {},
    }
  },
}
