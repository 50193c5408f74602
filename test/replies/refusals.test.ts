import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { inspect } from 'node:util'
import { MutexLostError, MutexStoreError, RedisMutex } from '@redismutex/core'
import { expect } from 'chai'
import type { Redis } from 'ioredis'
import { aborted, rejection, until } from '../conformance/ground.js'
import { Page, root } from '../docs/readme.js'
import { atEnd } from '../support/cleanup.js'
import { type ClientOptions, redisClients } from '../support/clients.js'
import { command } from '../support/command.js'
import { freshKey, type RedisOptions, type RedisServer, startRedis } from '../support/redis.js'

/** Long enough to see who waits for them. */
const SLOW = { storeTimeout: 14_000, blockTime: 15_000, expiry: 60_000, lease: 20_000 }
const SECRET = 'open-sesame'
const queueOf = (key: string): string => `redismutex:queue:{mutex:${key}}`
/** Long enough loading 1200 keys to be asked meanwhile. */
const SLOW_TO_LOAD = {
  args: [
    ...['--enable-debug-command', 'yes', '--key-load-delay', '2000'],
    ...['--loading-process-events-interval-bytes', '1024'],
  ],
}

for (const client of redisClients) {
  describe(`a server that refuses, through ${client.name}`, () => {
    let key: string

    beforeEach(() => {
      key = freshKey()
    })

    async function start(options?: RedisOptions): Promise<RedisServer> {
      const server = await startRedis(options)
      atEnd(() => server.stop())
      return server
    }

    function mutexOn(redis: Redis, options: object = {}): RedisMutex {
      const mutex = new RedisMutex(redis, { ...SLOW, ...options })
      atEnd(() => mutex.close())
      return mutex
    }

    /** A mutex whose user may do all but for these rules. */
    async function restricted(port: number, ...rules: string[]): Promise<RedisMutex> {
      await command(
        port,
        'ACL',
        'SETUSER',
        'app',
        'on',
        `>${SECRET}`,
        '~*',
        '&*',
        '+@all',
        ...rules,
      )
      return mutexOn(client.create(port, { username: 'app', password: SECRET }))
    }

    async function refuses(mutex: RedisMutex, words: RegExp): Promise<void> {
      const began = performance.now()
      const error = await rejection(mutex.acquireLock(key))
      expect(error).to.be.instanceOf(MutexStoreError)
      expect((error as Error).message).to.match(words)
      expect(performance.now() - began, 'at once').to.be.below(10_000)
      const shown = inspect(error, { depth: 10 })
      expect(shown).not.to.include(key)
      expect(shown).not.to.include(SECRET)
    }

    describe('what its user may not do', () => {
      let server: RedisServer
      before(async () => {
        server = await startRedis()
      })
      after(() => server.stop())

      for (const [what, rule, words] of [
        ['scripts', '-@scripting', /NOPERM/],
        ['scripts that it knows', '-evalsha', /NOPERM/],
        // Up to Redis 7.0 it has no code of its own.
        ['what the scripts do', '-set', /NOPERM|executing the script can't run this command/],
      ] as const) {
        it(`is named: ${what}`, async () => {
          await refuses(await restricted(server.port, rule), words)
        })
      }

      it('is nothing of what it needs, with the rights that the documentation names', async () => {
        const { text } = new Page('docs/how-it-works.md')
        const [named = ''] = text.match(/^ {4}~mutex.*?(?=\n\n)/ms) ?? []
        const rights = named.trim().split(/\s+/)
        await command(server.port, 'ACL', 'SETUSER', 'least', 'on', `>${SECRET}`, ...rights)
        await command(server.port, 'ACL', 'LOG', 'RESET')
        const user = { username: 'least', password: SECRET }
        const create = () => mutexOn(client.create(server.port, user), { delay: 10_000 })
        const [one, other] = [create(), create()]
        const lease = { expiry: Number.POSITIVE_INFINITY, lease: 1000 }
        const held = await one.with(lease).acquireLock([key, `${key}:2`])
        const leaving = new AbortController()
        const left = rejection(other.acquireLock(key, { signal: leaving.signal }))
        const waiting = other.acquireLock(`${key}:2`)
        await until(async () => (await command(server.port, 'EXISTS', queueOf(key))) === 1)
        leaving.abort()
        await left
        await sleep(1200)
        expect(held.signal.aborted, 'it is renewed').to.equal(false)
        const began = performance.now()
        await held.release()
        await (await waiting).release()
        expect(performance.now() - began, 'by a push').to.be.below(5000)
        expect(await command(server.port, 'ACL', 'LOG')).to.deep.equal([])
        for (const script of readdirSync(join(root, 'packages/core/lua'))) {
          const text = readFileSync(join(root, 'packages/core/lua', script), 'utf8')
          for (const [, name = ''] of text.matchAll(/\bp?call\('(\w+)'/g)) {
            expect(rights, script).to.include(`+${name.toLowerCase()}`)
          }
        }
      })

      it('is named: scripts that it does not know', async () => {
        const mutex = await restricted(server.port, '-eval')
        await command(server.port, 'SCRIPT', 'FLUSH')
        await refuses(mutex, /NOPERM/)
      })

      it('is named: a key, and only who asks for it is refused', async () => {
        const rules = ['resetkeys', '~mutex:allowed*', '~redismutex:*']
        const mutex = await restricted(server.port, ...rules)
        await refuses(mutex, /NOPERM/)
        const [forbidden, allowed, other] = await Promise.allSettled(
          [key, `allowed:${key}`, `allowed:${key}:2`].map((one) => mutex.acquireLock(one)),
        )
        expect(forbidden?.status).to.equal('rejected')
        expect([allowed?.status, other?.status]).to.deep.equal(['fulfilled', 'fulfilled'])
      })

      it('costs no more than a look each second: to subscribe', async () => {
        const stats = async (name: string) => {
          const info = String(await command(server.port, 'INFO', 'commandstats'))
          return Number(new RegExp(`cmdstat_${name}:.*rejected_calls=(\\d+)`).exec(info)?.[1] ?? 0)
        }
        /** The connections that have asked to subscribe last. */
        const inboxes = async () => {
          const clients = String(await command(server.port, 'CLIENT', 'LIST'))
          return clients.match(/^id=\d+(?=.* cmd=subscribe )/gm)
        }
        const waiter = await restricted(server.port, 'resetchannels')
        const holder = mutexOn(client.create(server.port))
        const held = await holder.acquireLock(key)
        const rejected = await stats('subscribe')
        const began = performance.now()
        const waiting = waiter.with({ delay: 100 }).acquireLock(key)
        await until(async () => (await stats('subscribe')) > rejected)
        const first = await inboxes()
        expect(first).to.have.length(1)
        await until(async () => (await stats('subscribe')) >= rejected + 3)
        expect(await inboxes(), 'it stays connected').to.deep.equal(first)
        const seconds = (performance.now() - began) / 1000
        expect(seconds, 'three looks').to.be.above(1.9)
        await held.release()
        await (await waiting).release()
      })

      it('is tried again while a lock is held: it survives a refusal that does not last', async () => {
        const mutex = await restricted(server.port)
        const lock = await mutex
          .with({ lease: 3000, expiry: Number.POSITIVE_INFINITY })
          .acquireLock(key)
        const refused = async () => {
          const info = String(await command(server.port, 'INFO', 'commandstats'))
          return Number(/cmdstat_evalsha:.*rejected_calls=(\d+)/.exec(info)?.[1])
        }
        const before = await refused()
        await command(server.port, 'ACL', 'SETUSER', 'app', '-evalsha', '-eval')
        await until(async () => (await refused()) >= before + 2)
        await command(server.port, 'ACL', 'SETUSER', 'app', '+evalsha', '+eval')
        await until(async () => Number(await command(server.port, 'PTTL', `mutex:${key}`)) > 1600)
        expect(lock.signal.reason).to.equal(undefined)
        await lock.release()
      })

      it('is named when a lock is given back, which is as good as held then', async () => {
        const mutex = await restricted(server.port, '-del')
        const lock = await mutex.acquireLock(key)
        const error = await rejection(lock.release())
        expect(error).to.be.instanceOf(MutexStoreError)
        expect((error as Error).message).to.match(
          /NOPERM|executing the script can't run this command/,
        )
        expect(await command(server.port, 'EXISTS', `mutex:${key}`)).to.equal(1)
        await command(server.port, 'ACL', 'SETUSER', 'app', '+del')
        await until(async () => (await command(server.port, 'EXISTS', `mutex:${key}`)) === 0)
      })

      it('ends a lock that could not be renewed to the end of its lease', async () => {
        const mutex = await restricted(server.port)
        const lock = await mutex
          .with({ lease: 1000, expiry: Number.POSITIVE_INFINITY })
          .acquireLock(key)
        await command(server.port, 'ACL', 'SETUSER', 'app', '-evalsha', '-eval')
        expect(await aborted(lock.signal)).to.be.instanceOf(MutexLostError)
      })
    })

    it('is named: read-only', async () => {
      const { port } = await start()
      await command(port, 'REPLICAOF', '127.0.0.1', '1')
      await refuses(mutexOn(client.create(port)), /READONLY/)
    })

    it('is named: a replica without its master', async () => {
      const { port } = await start({ args: ['--replica-serve-stale-data', 'no'] })
      const redis = client.create(port)
      await redis.ping()
      await command(port, 'REPLICAOF', '127.0.0.1', '1')
      await refuses(mutexOn(redis), /MASTERDOWN/)
    })

    it('is named: out of memory, where a lock can be given back all the same', async () => {
      const { port } = await start()
      const mutex = mutexOn(client.create(port))
      const lock = await mutex.acquireLock(`${key}:held`)
      await command(port, 'CONFIG', 'SET', 'maxmemory', '1')
      await refuses(mutex, /OOM/)
      await lock.release()
      expect(Number(await command(port, 'EXISTS', `mutex:${key}:held`))).to.equal(0)
    })

    it('is named: loading', async () => {
      const { port } = await start(SLOW_TO_LOAD)
      const redis = client.create(port)
      const admin = client.create(port)
      await Promise.all([redis.ping(), admin.call('DEBUG', 'POPULATE', '1200')])
      const loading = admin.call('DEBUG', 'RELOAD').catch(() => {})
      await until(async () => {
        const answer = await redis.get(key).catch((error: Error) => error.message)
        return String(answer).startsWith('LOADING')
      })
      await refuses(mutexOn(redis), /LOADING/)
      admin.disconnect()
      await loading
    })

    it('is told from one that does not answer: a client that is kept from being ready', async () => {
      const { port } = await start(SLOW_TO_LOAD)
      const admin = client.create(port)
      await admin.call('DEBUG', 'POPULATE', '1200')
      const loading = admin.call('DEBUG', 'RELOAD').catch(() => {})
      const error = await rejection(
        mutexOn(client.create(port), { storeTimeout: 700 }).acquireLock(key),
      )
      expect((error as Error).message).to.match(/within 700 ms: Redis is not ready/)
      admin.disconnect()
      await loading
    })

    for (const [what, password, words] of [
      ['no password', undefined, /NOAUTH/],
      ['a wrong password', 'wrong', /WRONGPASS/],
    ] as const) {
      it(`is named: one that is given ${what}, the first time and each time after`, async () => {
        const { port } = await start({ args: ['--requirepass', SECRET] })
        const options: ClientOptions = password === undefined ? {} : { password }
        const mutex = mutexOn(client.create(port, options))
        for (let time = 0; time < 4; time++) await refuses(mutex, words)
      })
    }

    it('is named: one that is not there', async () => {
      const server = await start()
      const mutex = mutexOn(client.create(server.port), { storeTimeout: 300 })
      await mutex.runExclusive(key, () => {})
      await server.kill()
      expect(((await rejection(mutex.acquireLock(key))) as Error).message).to.match(/ECONNREFUSED/)
    })
  })
}
