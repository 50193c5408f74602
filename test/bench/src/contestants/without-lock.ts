import type { Contestant } from './contestant.js'

/** A server that lets everybody do everything at the same time. */
export const withoutLock: Contestant = {
  name: 'no lock',
  kind: 'floor',
  store: 'redis',
  about: 'the same server without a lock',
  sends: [],
  async open() {
    return {
      acquire: async () => () => {},
      close: async () => {},
    }
  },
}
