import { memoryStore, quorumStore } from '@redismutex/core'
import { expect } from 'chai'
import { Cluster, type Redis } from 'ioredis'
import { clientsOf } from './masters.js'

describe('quorumStore', () => {
  const ports = [1, 2, 3, 4, 5].map((port) => ({ port }))
  let clients: Redis[]

  beforeEach(() => {
    // Nothing is sent, so nobody need be there.
    clients = clientsOf(ports, { lazyConnect: true })
  })

  describe('refuses, naming the value and the rule', () => {
    const refusals: Record<string, [() => unknown, string]> = {
      nothing: [() => undefined, 'masters must be an array of at least 3 clients, got undefined'],
      'one client': [() => clients[0], 'at least 3 clients, got an object of EventEmitter'],
      'two clients': [() => clients.slice(0, 2), 'at least 3 clients, got an array of 2'],
      'what is no client': [
        () => [clients[0], 'redis://user:secret@host', clients[1]],
        'masters[1] must be an ioredis client (Redis or Cluster), got a string',
      ],
      'a store': [
        () => [clients[0], clients[1], memoryStore()],
        'masters[2] must be an ioredis client (Redis or Cluster), got an object of Object without evalsha',
      ],
      'one client twice': [
        () => [clients[0], clients[1], clients[0]],
        'masters[2] must be another server than masters[0], got the same one',
      ],
      'two clients of one server': [
        () => [clients[0], clients[1], ...clientsOf([{ port: 2 }], { lazyConnect: true })],
        'masters[2] must be another server than masters[1], got the same one',
      ],
      'two databases of one server': [
        () => [...clients, ...clientsOf([{ port: 4 }], { lazyConnect: true, db: 1 })],
        'masters[5] must be another server than masters[3], got the same one',
      ],
      'a Cluster with a prefix that spreads a mutex over slots': [
        () => {
          const options = { lazyConnect: true, keyPrefix: 'a{b' }
          return [clients[0], clients[1], new Cluster([{ port: 6 }], options)]
        },
        'the keyPrefix of a Cluster client must have no braces',
      ],
    }
    for (const [name, [masters, message]] of Object.entries(refusals)) {
      it(name, () => {
        expect(() => quorumStore(masters() as Redis[])).to.throw(TypeError, message)
      })
    }

    it('options that nobody knows, and prefixes that do not do', () => {
      const known = "unknown option 'drift' (string) in options; known are keyPrefix"
      expect(() => quorumStore(clients, { drift: 0.01 } as object)).to.throw(TypeError, known)
      const rule = "keyPrefix must not begin with 'redismutex:'"
      expect(() => quorumStore(clients, { keyPrefix: 'redismutex:' })).to.throw(TypeError, rule)
    })
  })

  it('takes clients that only differ in where they connect to', () => {
    quorumStore(clientsOf(ports.slice(0, 4), { lazyConnect: true }))
    const sentinels = [{ host: '127.0.0.1', port: 1 }]
    const named = ['a', 'b', 'c'].map(
      (name) => clientsOf([{ port: 1 }], { lazyConnect: true, sentinels, name })[0] as Redis,
    )
    quorumStore(named)
  })

  it('is the same one for the same clients in any order, and another one for others', () => {
    const store = quorumStore(clients)
    expect(quorumStore(clients.toReversed(), { keyPrefix: 'mutex:' })).to.equal(store)
    expect(quorumStore(clients, { keyPrefix: 'other:' })).not.to.equal(store)
    expect(quorumStore(clients.slice(0, 3))).not.to.equal(store)
    const others = [...clients.slice(0, 4), ...clientsOf([{ port: 6 }], { lazyConnect: true })]
    expect(quorumStore(others)).not.to.equal(store)
  })
})
