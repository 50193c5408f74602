import { Mutex, memoryStore, RedisMutex, type RedisMutexOptions } from '@redismutex/core'
import { expect } from 'chai'
import { rejection } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'
import { redisClients } from '../support/clients.js'
import { freshPrefix, sharedRedis } from '../support/redis.js'

const [client] = redisClients as [(typeof redisClients)[number]]

function inMemory(): Mutex {
  const mutex = new Mutex(memoryStore())
  atEnd(() => mutex.close())
  return mutex
}

function inRedis(options: RedisMutexOptions): RedisMutex {
  const mutex = new RedisMutex(client.create(sharedRedis().port), options)
  atEnd(() => mutex.close())
  return mutex
}

const codeOf = (text: string): string =>
  [...text.slice(0, 30)].map((c) => (c < ' ' ? `\\x${c.charCodeAt(0)}` : c)).join('')

describe('a key', () => {
  const wrong: [name: string, key: unknown][] = [
    ['an empty string', ''],
    ['undefined', undefined],
    ['null', null],
    ['a number', 4711],
    ['a bigint', 4711n],
    ['NaN', Number.NaN],
    ['a boolean', true],
    ['a symbol', Symbol('4711')],
    ['a function', () => '4711'],
    ['an object', { id: 4711 }],
    ['a string object', new String('4711')],
    ['a buffer', Buffer.from('4711')],
    ['a set', new Set(['4711'])],
    ['a lone high surrogate', '4711\ud83d'],
    ['a lone low surrogate', '\udca54711'],
    ['surrogates in the wrong order', '4711\udca5\ud83d'],
  ]

  for (const [name, key] of wrong) {
    it(`is refused with a TypeError: ${name}`, async () => {
      for (const mutex of [inMemory(), inRedis({})]) {
        for (const work of [
          () => mutex.acquireLock(key as string),
          () => mutex.tryAcquire(key as string),
          () => mutex.runExclusive(key as string, () => expect.fail('it ran')),
          () => mutex.acquireLock(['right', key as string]),
        ]) {
          const error = await rejection(work())
          expect(error).to.be.instanceOf(TypeError)
          expect(error)
            .to.have.property('message')
            .that.matches(/^key must be .*string.*, got ./)
          expect(error).to.have.property('message').that.does.not.include('4711')
        }
        expect(mutex.stats()).to.include({ held: 0, waiting: 0, acquired: 0 })
        await (await mutex.acquireLock('right')).release()
      }
    })
  }

  it('is refused with a TypeError: no key at all', async () => {
    const mutex = inMemory()
    expect(await rejection(mutex.acquireLock([]))).to.be.instanceOf(TypeError)
    expect(await rejection(mutex.tryAcquire([]))).to.be.instanceOf(TypeError)
  })

  it('is not read again later when it is one of several', async () => {
    const mutex = inMemory()
    const keys = ['a', 'b']
    const acquiring = mutex.acquireLock(keys)
    keys[0] = 'c'
    keys.push('d')
    const lock = await acquiring
    expect(lock.keys).to.deep.equal(['a', 'b'])
    await lock.release()
  })

  const right = [
    ' ',
    '\0',
    '\n\r\n',
    '__proto__',
    'constructor',
    'a|b|c',
    'k'.repeat(256),
    'k'.repeat(257),
    'k'.repeat(10_240),
    '💥'.repeat(64),
    '💥'.repeat(65),
    '\ufffd',
    '\ufeff',
    'é',
    'e\u0301',
    '*',
    '../../etc/passwd',
    '%s %d %o',
  ]
  const braces = [
    '{',
    '}',
    '{}',
    '{}{a}',
    '{a',
    'a}',
    '}{',
    'a}b{c',
    '{{a}}',
    '{a}{b}',
    '{a}',
    '{}}',
  ]
  const ours = [
    'sha256:',
    `sha256:${'0'.repeat(64)}`,
    'redismutex:',
    'redismutex:queue:{mutex:a}',
    'redismutex:fence',
    'redismutex:fence:{mutex:a}',
    'redismutex:inbox:x',
    'mutex:a',
  ]

  describe('may be any other string', () => {
    for (const key of [...right, ...braces, ...ours]) {
      it(codeOf(key), async () => {
        const keyPrefix = freshPrefix()
        const [mutex, other] = [inRedis({ keyPrefix }), inRedis({ keyPrefix })]
        for (const [here, there] of [
          [mutex, other],
          [inMemory(), undefined],
        ] as const) {
          const lock = await here.acquireLock(key)
          expect(lock.key).to.equal(key)
          expect(await (there ?? here).tryAcquire(key)).to.equal(null)
          const waiter = (there ?? here).acquireLock(key)
          await lock.release()
          await (await waiter).release()
        }
      })
    }

    it('all of them at once, since none is another', async () => {
      const keys = [...right, ...braces, ...ours]
      for (const mutex of [inMemory(), inRedis({ keyPrefix: freshPrefix() })]) {
        const lock = await mutex.acquireLock(keys)
        expect(lock.keys).to.deep.equal(keys)
        await lock.release()
      }
    })
  })

  describe("with keyPrefix ''", () => {
    const unique = freshPrefix()

    for (const key of ['{', 'a}', '{}', '}{', 'k'.repeat(257), '💥'.repeat(65)]) {
      it(`is refused where other libraries would name it differently: ${codeOf(key)}`, async () => {
        const mutex = inRedis({ keyPrefix: '' })
        const error = await rejection(mutex.acquireLock(unique + key))
        expect(error).to.be.instanceOf(TypeError)
        expect(error)
          .to.have.property('message')
          .that.matches(/^with keyPrefix '' a key must/)
        expect(error).to.have.property('message').that.does.not.include(unique)
      })
    }

    for (const key of ['sha256:x', 'redismutex:', 'redismutex:queue:{a}']) {
      it(`is refused when it looks like one of ours: ${key}`, async () => {
        const error = await rejection(inRedis({ keyPrefix: '' }).acquireLock(key))
        expect(error).to.be.instanceOf(TypeError)
        expect(error)
          .to.have.property('message')
          .that.matches(/must not begin with/)
      })
    }

    for (const key of ['plain', '{tag}', 'a{b}c', 'mutex:x', 'k'.repeat(256 - unique.length)]) {
      it(`is the name in Redis: ${codeOf(key)}`, async () => {
        const redis = client.create(sharedRedis().port)
        const lock = await inRedis({ keyPrefix: '' }).acquireLock(unique + key)
        expect(await redis.get(unique + key)).to.equal(lock.value)
        await lock.release()
      })
    }
  })
})
