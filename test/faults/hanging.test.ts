import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { MutexStoreError, RedisMutex } from '@redismutex/core'
import { expect } from 'chai'
import type { Redis } from 'ioredis'
import { scripts } from '../../packages/core/src/stores/redis/scripts.js'
import { range, rejection, until } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'
import { redisClients } from '../support/clients.js'
import { command } from '../support/command.js'
import { poll } from '../support/poll.js'
import { freshKey, type RedisServer, startRedis } from '../support/redis.js'

const MANY = 20

for (const client of redisClients) {
  describe(`while Redis hangs but stays connected, through ${client.name}`, () => {
    let server: RedisServer
    let redis: Redis
    /** Calls that were made, and those that the client has not done with. */
    let calls: number
    let underWay: number
    let most: number

    beforeEach(async () => {
      server = await startRedis()
      atEnd(() => server.stop())
    })

    function mutexOn(options: object, on: Redis = client.create(server.port)): RedisMutex {
      redis = on
      const send = redis.evalsha.bind(redis) as (...args: unknown[]) => Promise<unknown>
      Object.assign(redis, {
        evalsha: (...args: unknown[]) => {
          calls++
          most = Math.max(most, ++underWay)
          return send(...args).finally(() => underWay--)
        },
      })
      const mutex = new RedisMutex(redis, options)
      atEnd(() => mutex.close())
      return mutex
    }

    function countAnew(): void {
      calls = underWay = most = 0
    }

    async function ask(mutex: RedisMutex): Promise<void> {
      const asked: Promise<unknown>[] = []
      for (let n = 0; n < MANY; n++) {
        asked.push(rejection(mutex.acquireLock(freshKey())))
        // Not in one call.
        await nextTurn()
      }
      for (const error of await Promise.all(asked)) expect(error).to.be.instanceOf(MutexStoreError)
    }

    /** It knows the scripts from then on that a lock needs. */
    const uses = (mutex: RedisMutex) => mutex.runExclusive(freshKey(), () => {})

    async function isClean(): Promise<boolean> {
      const look = client.create(server.port)
      // This counts those, too, that have expired unnoticed.
      const size = await look.dbsize()
      return size === (await look.exists('redismutex:fence'))
    }

    /** Gives those keys that have expired since. */
    async function watchExpiries(): Promise<() => Promise<string[]>> {
      const look = client.create(server.port)
      await look.config('SET', 'notify-keyspace-events', 'Ex')
      const keys: string[] = []
      look.on('message', (_channel, key) => keys.push(key))
      await look.subscribe('__keyevent@0__:expired')
      return async () => {
        await look.ping()
        return keys
      }
    }

    beforeEach(countAnew)

    it('hardly anything more is asked of it, but what is held is kept and given back', async () => {
      const mutex = mutexOn({ storeTimeout: 200, blockTime: 5000, lease: 20_000, expiry: 25_000 })
      const [one, two] = [await mutex.acquireLock(freshKey()), await mutex.acquireLock(freshKey())]
      const { key } = one
      server.pause()
      await ask(mutex)
      countAnew()
      for (let wave = 0; wave < 5; wave++) await ask(mutex)
      expect(calls).to.be.below(MANY)
      countAnew()
      const released = one.release().catch(() => {})
      await until(() => calls === 1)
      server.resume()
      await released
      const look = client.create(server.port)
      await until(async () => (await look.exists(`mutex:${key}`)) === 0)
      await uses(mutex)
      expect(two.signal.aborted).to.equal(false)
      await two.release()
      await until(isClean)
    })

    it('a client with a time limit of its own makes one call at a time', async () => {
      const mutex = mutexOn({ storeTimeout: 200 })
      await uses(mutex)
      redis.options.commandTimeout = 30
      server.pause()
      await ask(mutex)
      await until(() => underWay === 0)
      countAnew()
      for (let wave = 0; wave < 5; wave++) await ask(mutex)
      expect(most).to.equal(1)
      server.resume()
      delete redis.options.commandTimeout
      await uses(mutex)
      await until(isClean)
    })

    it('of a Cluster, what a client with a time limit of its own has given up is not sent again all at once', async () => {
      const node = await startRedis({
        args: ['--cluster-enabled', 'yes', '--cluster-announce-ip', '127.0.0.1'],
      })
      atEnd(() => node.stop())
      await command(node.port, 'CLUSTER', 'ADDSLOTSRANGE', 0, 16_383)
      await poll('it serves', async () =>
        String(await command(node.port, 'CLUSTER', 'INFO')).includes('cluster_state:ok'),
      )
      const cluster = client.createCluster([node.port])
      const mutex = mutexOn({ lease: 20_000, expiry: 25_000 }, cluster as object as Redis)
      await uses(mutex)
      const [connection] = cluster.nodes()
      connection!.options.commandTimeout = 200
      node.pause()
      countAnew()
      await Promise.all(range(10).map(() => ask(mutex)))
      // Each has been taken back once, some once more, and all that has been given up as well.
      await until(() => calls >= 25 * MANY && underWay < 50)
      calls = most = 0
      await until(() => calls > 10 * MANY)
      expect(most, 'a few at a time').to.be.within(2, 50)
      node.resume()
      delete connection!.options.commandTimeout
      await uses(mutex)
      const keys = ['mutex:*', 'redismutex:queue:*']
      await until(async () => {
        const left = await Promise.all(keys.map((pattern) => connection!.keys(pattern)))
        return left.flat().length === 0
      })
    })

    it('who is first asked for when the connection has broken is not taken back again and again', async () => {
      const mutex = mutexOn({ storeTimeout: 200 })
      await uses(mutex)
      const send = redis.evalsha.bind(redis) as (...args: unknown[]) => Promise<unknown>
      const cancelled = new Set<unknown>()
      Object.assign(redis, {
        evalsha: (...args: unknown[]) => {
          if (args[0] === scripts.cancel.sha) for (const arg of args.flat()) cancelled.add(arg)
          return send(...args)
        },
      })
      server.pause()
      await ask(mutex)
      const patient = mutex.with({ storeTimeout: 10_000, blockTime: 12_000, expiry: 15_000 })
      const others: Promise<unknown>[] = []
      for (let n = 0; n < MANY; n++) {
        others.push(uses(patient))
        await nextTurn()
      }
      countAnew()
      const waiting = patient.acquireLock(freshKey())
      await nextTurn()
      expect(calls, 'it is not sent yet').to.equal(0)
      redis.stream.destroy()
      server.resume()
      const lock = await waiting
      const { value } = lock
      await lock.release()
      await Promise.all(others)
      await uses(mutex)
      expect(cancelled.has(value)).to.equal(false)
    })

    it('what lands after all that could have been left of it is taken back', async () => {
      const mutex = mutexOn({ storeTimeout: 200, blockTime: 300, delay: 150, lease: 3000 })
      await uses(mutex)
      redis.options.commandTimeout = 30
      const expired = await watchExpiries()
      server.pause()
      await ask(mutex)
      await sleep(3800)
      server.resume()
      await until(isClean)
      expect((await expired()).filter((key) => key.startsWith('mutex:'))).to.deep.equal([])
    })
  })
}
