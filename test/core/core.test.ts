import { Mutex, memoryStore, type Store } from '@redismutex/core'
import { expect } from 'chai'

describe('a store', () => {
  it('is opened for the first mutex on it, and closed with the last', async () => {
    const calls: string[] = []
    const store: Store = {
      ...memoryStore(),
      open: () => void calls.push('open'),
      close: async () => void calls.push('close'),
    }
    const one = new Mutex(store)
    const other = new Mutex(store)
    const derived = one.with({ maxWaiting: 5 })
    await one.close()
    await derived.close()
    expect(calls).to.deep.equal(['open'])
    await other.close()
    expect(calls).to.deep.equal(['open', 'close'])
    await new Mutex(store).close()
    expect(calls).to.deep.equal(['open', 'close', 'open', 'close'])
  })
})
