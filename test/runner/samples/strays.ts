import { EventEmitter } from 'node:events'

describe('strays', () => {
  it('leaves a rejection', () => {
    void Promise.reject(new Error('nobody handles this'))
  })

  it('leaks listeners', () => {
    const emitter = new EventEmitter()
    for (let n = 0; n < 20; n++) emitter.on('event', () => {})
  })

  it('waits longer than a timer can', () => {
    setTimeout(() => {}, 2 ** 31).unref()
  })

  it('fails in a callback', (_done) => {
    setImmediate(() => {
      throw new Error('nobody catches this')
    })
  })

  it('is fine', () => {})

  it('fails when all is over', () => {
    process.once('beforeExit', () => {
      void Promise.reject(new Error('nobody is left to handle this'))
      setImmediate(() => {
        throw new Error('nobody is left to catch this')
      })
    })
  })
})
