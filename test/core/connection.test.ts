import {
  Mutex,
  memoryStore,
  quorumStore,
  RedisMutex,
  redisStore,
  withRedisMutex,
} from '@redismutex/core'
import { expect } from 'chai'
import { Cluster } from 'ioredis'
import { atEnd } from '../support/cleanup.js'
import { redisClients } from '../support/clients.js'
import { sharedRedis } from '../support/redis.js'

/** What node-redis's clients have, which names commands in its own way. */
class NodeRedisLike {
  isOpen = true
  isReady = true
  options = {}
  async evalSha() {}
  async EVALSHA() {}
  async eval() {}
  async subscribe() {}
  async unsubscribe() {}
  on() {}
  off() {}
  duplicate() {}
  async disconnect() {}
}

describe('a wrong connection', () => {
  const wrong: [name: string, value: () => unknown][] = [
    ['undefined', () => undefined],
    ['null', () => null],
    ['an empty object', () => ({})],
    ['a number', () => 6379],
    ['an address', () => 'redis://127.0.0.1:6379'],
    ['options of a client', () => ({ host: '127.0.0.1', port: 6379 })],
    ['an array', () => []],
    ['a function', () => () => {}],
    ['a symbol', () => Symbol('redis')],
    ['an object without a prototype', () => Object.create(null)],
    ['a promise of a client', async () => client()],
    ['a client of node-redis', () => new NodeRedisLike()],
    ['a pipeline', () => client().pipeline()],
    ['a transaction', () => client().multi()],
    ['a class of clients', () => Cluster],
  ]

  const client = () => (redisClients[0] as (typeof redisClients)[number]).create(sharedRedis().port)

  for (const [name, value] of wrong) {
    it(`is refused with a TypeError: ${name}`, () => {
      const message = /^redis must be an ioredis client \(Redis or Cluster\), got /
      const create = value() as never
      expect(() => new RedisMutex(create)).to.throw(TypeError, message)
      expect(() => redisStore(create)).to.throw(TypeError, message)
      expect(() => withRedisMutex(create, 'key')).to.throw(TypeError, message)
    })
  }

  it('says what is missing', () => {
    expect(() => new RedisMutex(new NodeRedisLike() as never)).to.throw(
      'got an object of NodeRedisLike without evalsha',
    )
  })

  const address = 'redis://user:secret@host' as never
  for (const [what, create] of [
    ['a client', () => new RedisMutex(address)],
    ['masters', () => quorumStore(address)],
    ['a store', () => new Mutex(address)],
    ['options', () => new Mutex(memoryStore(), address)],
  ] as const) {
    it(`does not tell what is in an address that was given for ${what}`, () => {
      expect(create)
        .to.throw(TypeError)
        .with.property('message')
        .that.matches(/got a\w* (string|address)/)
        .and.not.include('secret')
    })
  }

  it('is refused before the options are looked at', () => {
    expect(() => new RedisMutex(null as never, { keyPrefix: 'a' })).to.throw(/redis must be/)
  })
})

describe('a wrong store', () => {
  for (const [name, value] of [
    ['undefined', undefined],
    ['null', null],
    ['an object', {}],
    ['a number', 5],
    ['a name', 'memory'],
    ['a function that makes one', redisStore],
  ] as const) {
    it(`is refused with a TypeError: ${name}`, () => {
      expect(() => new Mutex(value as never)).to.throw(TypeError, /^store must be a store.*, got /)
    })
  }

  it('is refused with a TypeError: a client', () => {
    const redis = redisClients[0]?.create(sharedRedis().port)
    expect(() => new Mutex(redis as never)).to.throw(TypeError, /^store must be a store.*, got /)
  })
})

describe('a right connection', () => {
  for (const client of redisClients) {
    it(`is a Redis of ${client.name}`, () => {
      const mutex = new RedisMutex(client.create(sharedRedis().port))
      atEnd(() => mutex.close())
    })
  }

  it('is a Cluster', () => {
    const cluster = new Cluster(['redis://127.0.0.1:1'], { lazyConnect: true })
    atEnd(() => cluster.disconnect())
    const mutex = new RedisMutex(cluster)
    atEnd(() => mutex.close())
  })

  it('may be one that has not connected yet', async () => {
    const [client] = redisClients as [(typeof redisClients)[number]]
    const redis = client.create(sharedRedis().port, { lazyConnect: true })
    const mutex = new RedisMutex(redis)
    atEnd(() => mutex.close())
    expect(redis.status).to.equal('wait')
    await mutex.runExclusive('test:lazy', () => {})
  })
})
