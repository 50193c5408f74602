import { RedisMutex, redisStore } from '@redismutex/core'
import { expect } from 'chai'
import fc from 'fast-check'
import { Cluster, type Redis } from 'ioredis'
import {
  assertPrefix,
  fenceOf,
  lockName,
  namesOf,
} from '../../packages/core/src/stores/redis/names.js'
import { rejection } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'
import { redisClients } from '../support/clients.js'
import { freshKey, type RedisServer, startRedis } from '../support/redis.js'

/** Made of what could confuse: braces, separators, names like our own, and other things. */
const piece = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom('{', '}', '{}', '{a}', '{{', '}}', ':', '|', 'a', 'b') },
  {
    weight: 2,
    arbitrary: fc.constantFrom(
      'redismutex:',
      'redismutex:queue:',
      'redismutex:fence:',
      'redis',
      'mutex:',
      'sha256:',
      'é',
      '💥',
      '\0',
      ' ',
    ),
  },
  { weight: 1, arbitrary: fc.string({ unit: 'grapheme', maxLength: 5 }) },
  { weight: 1, arbitrary: fc.constantFrom('x'.repeat(90), '{y}'.repeat(40), 'ü'.repeat(129)) },
)
const text = fc.array(piece, { maxLength: 6 }).map((pieces) => pieces.join(''))
const prefixes = fc.oneof(
  fc.constantFrom('mutex:', '', '{app}:', 'app:', 'redis', 'redismutex'),
  text.filter((prefix) => isAccepted(() => assertPrefix('keyPrefix', prefix))),
)
const clientPrefixes = fc.constantFrom('', 'app:', '{app}:', 'a{b}c:', 'redismutex:')
/** Others serve as well where there are no slots. */
const anyClientPrefixes = fc.oneof(clientPrefixes, fc.constantFrom('{', '}', 'a{', '{}', 'a}{'))

function isAccepted(check: () => unknown): boolean {
  try {
    check()
    return true
  } catch {
    return false
  }
}

const keys = text.filter((key) => key !== '')
const mutexes = fc
  .record({ prefix: prefixes, key: keys })
  .filter(({ prefix, key }) => isAccepted(() => lockName(prefix, key)))

/** The names of a mutex on a Cluster, as Redis sees them: lock, queue, fence. */
function seen(prefix: string, key: string, clientPrefix: string): [string, string, string] {
  const names = namesOf(lockName(prefix, key), clientPrefix)
  return [
    clientPrefix + names.lock,
    clientPrefix + names.queue,
    clientPrefix + fenceOf(names, true),
  ]
}

describe('the names of a mutex', () => {
  it('are never those of another', () => {
    fc.assert(
      fc.property(mutexes, mutexes, anyClientPrefixes, (one, other, clientPrefix) => {
        const [mine, theirs] = [one, other].map(({ prefix, key }) =>
          seen(prefix, key, clientPrefix),
        ) as [[string, string, string], [string, string, string]]
        expect(new Set(mine).size).to.equal(3)
        // The same lock name is the same lock, whatever it was made of.
        if (mine[0] === theirs[0]) expect(mine).to.deep.equal(theirs)
        else expect(new Set([...mine, ...theirs]).size).to.equal(6)
      }),
      { numRuns: 2000 },
    )
  })

  it('are different for different keys', () => {
    fc.assert(
      fc.property(prefixes, keys, keys, (prefix, one, other) => {
        fc.pre(isAccepted(() => [lockName(prefix, one), lockName(prefix, other)]))
        expect(lockName(prefix, one) === lockName(prefix, other)).to.equal(one === other)
      }),
      { numRuns: 2000 },
    )
  })

  it('cannot be chosen by a key that looks like one of them', () => {
    fc.assert(
      fc.property(mutexes, prefixes, (victim, prefix) => {
        const names = seen(victim.prefix, victim.key, '')
        for (const [index, name] of names.entries()) {
          // Whatever the prefix leaves to be said of the name.
          const key = name.startsWith(prefix) ? name.slice(prefix.length) : name
          if (key === '' || !isAccepted(() => lockName(prefix, key))) continue
          const [lock] = seen(prefix, key, '')
          if (index > 0) expect(lock).not.to.equal(name)
        }
      }),
      { numRuns: 2000 },
    )
  })

  it('are short, however long the key is', () => {
    for (const key of ['k'.repeat(10_000), '{tag}'.repeat(2000), '💥'.repeat(100)]) {
      for (const name of seen('mutex:', key, '')) {
        expect(Buffer.byteLength(name)).to.be.below(600)
      }
    }
  })

  it('show the key as it is, unless that is not possible', () => {
    for (const key of ['user:42', 'ключ', 'a b', '{tag}:x', 'k'.repeat(256)]) {
      expect(lockName('mutex:', key)).to.equal(`mutex:${key}`)
    }
    for (const key of ['k'.repeat(257), 'a{b', 'a}b', '{}', 'sha256:x', '{}{a}']) {
      expect(lockName('mutex:', key)).to.match(/^mutex:sha256:[0-9a-f]{64}$/)
    }
  })

  describe('on a Cluster', () => {
    let server: RedisServer
    let redis: Redis

    before(async () => {
      server = await startRedis({
        args: ['--cluster-enabled', 'yes', '--cluster-announce-ip', '127.0.0.1'],
      })
      const client = redisClients[0]?.create(server.port) as Redis
      await client.call('CLUSTER', 'ADDSLOTSRANGE', '0', '16383')
      while (!String(await client.call('CLUSTER', 'INFO')).includes('cluster_state:ok')) {
        await new Promise((resolve) => setTimeout(resolve, 10))
      }
    })
    after(() => server.stop())

    beforeEach(() => {
      redis = redisClients[0]?.create(server.port) as Redis
    })

    it('are all in one slot', async () => {
      await fc.assert(
        fc.asyncProperty(mutexes, clientPrefixes, async ({ prefix, key }, clientPrefix) => {
          const names = seen(prefix, key, clientPrefix)
          const slots = await Promise.all(
            names.map((name) => redis.call('CLUSTER', 'KEYSLOT', name)),
          )
          expect(new Set(slots).size, names.join(' ')).to.equal(1)
        }),
        { numRuns: 500 },
      )
    })

    it('keep the hash tag of the key, so that a mutex is where its data are', async () => {
      const slot = (name: string) => redis.call('CLUSTER', 'KEYSLOT', name)
      for (const name of seen('mutex:', 'cart:{user:42}', '')) {
        expect(await slot(name)).to.equal(await slot('{user:42}:cart'))
      }
    })

    for (const clientPrefix of ['', 'app:', '{app}:']) {
      it(`are accepted with '${clientPrefix}' as the prefix of the client`, async () => {
        const [client] = redisClients as [(typeof redisClients)[number]]
        const create = (keyPrefix?: string) => {
          const redis = client.create(server.port, { keyPrefix: clientPrefix })
          const mutex = new RedisMutex(redis, { keyPrefix, delay: 4000 })
          atEnd(() => mutex.close())
          return mutex
        }
        const unique = freshKey()
        for (const prefix of [undefined, '{tag}', 'other']) {
          const mutex = create(prefix)
          const other = create(prefix)
          for (const key of ['plain', '{tag}', 'a{b', '}{', '{}', 'k'.repeat(300), 'sha256:']) {
            const lock = await mutex.acquireLock(unique + key)
            expect(await other.tryAcquire(unique + key)).to.equal(null)
            const waiter = other.acquireLock(unique + key)
            await lock.release()
            await (await waiter).release()
          }
        }
      })
    }

    for (const clientPrefix of ['app{', 'app}', '{}', '}{']) {
      it(`are refused with '${clientPrefix}' as the prefix of the client`, async () => {
        const cluster = new Cluster([{ host: '127.0.0.1', port: server.port }], {
          keyPrefix: clientPrefix,
          lazyConnect: true,
        })
        atEnd(() => cluster.disconnect())
        expect(() => redisStore(cluster)).to.throw(TypeError, /keyPrefix.*hash tag/)
      })
    }

    it('are accepted by way of a Cluster client, several keys in different slots too', async () => {
      for (const keyPrefix of ['', 'app:', '{app}:']) {
        const cluster = new Cluster([{ host: '127.0.0.1', port: server.port }], { keyPrefix })
        atEnd(() => cluster.disconnect())
        const mutex = new RedisMutex(cluster)
        atEnd(() => mutex.close())
        const unique = freshKey()
        const keys = ['a', 'b', '{tag}', 'a{b'].map((key) => unique + key)
        await using lock = await mutex.acquireLock(keys)
        expect(lock.keys).to.deep.equal(keys)
        const error = await rejection(mutex.acquireLock(keys, { blocking: false }))
        expect(error).to.have.property('code', 'ERR_MUTEX_LOCKED')
      }
    })
  })
})
