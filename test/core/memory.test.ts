import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Mutex, memoryStore, RedisMutex } from '@redismutex/core'
import { expect } from 'chai'
import { range, rejection } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'
import { redisClients } from '../support/clients.js'
import { startRedis } from '../support/redis.js'

const [client] = redisClients as [(typeof redisClients)[number]]
const KEYS = 10_000
const AT_ONCE = 500
/** In bytes, for each key: less than a key's own string and its place in a table take. */
const LEAST = 50

/** What is in use, in bytes, after what nobody needs has been thrown away. */
function heap(): number {
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
  return process.memoryUsage().heapUsed
}

/** Locks so many keys, each of them once. */
async function lockEach(mutex: Mutex, name: string): Promise<void> {
  for (let from = 0; from < KEYS; from += AT_ONCE) {
    await Promise.all(
      range(AT_ONCE).map((n) =>
        mutex.runExclusive(`${name}:${from + n}:somebody's account`, () => {}),
      ),
    )
  }
}

describe('the memory for keys that were locked once', () => {
  it('is given back by the process that had them in Redis, and by Redis', async () => {
    const server = await startRedis()
    atEnd(() => server.stop())
    const redis = client.create(server.port)
    const mutex = new RedisMutex(redis, { storeTimeout: 5000 })
    atEnd(() => mutex.close())
    const memory = async () => Number(/used_memory:(\d+)/.exec(await redis.info('memory'))?.[1])
    // The first time makes what is made only once.
    await lockEach(mutex, 'first')
    const before = { heap: heap(), redis: await memory() }
    await lockEach(mutex, 'second')
    const after = { heap: heap(), redis: await memory() }
    expect((after.heap - before.heap) / KEYS, 'bytes for each key here').to.be.below(LEAST)
    expect((after.redis - before.redis) / KEYS, 'bytes for each key in Redis').to.be.below(LEAST)
    expect(await redis.keys('*')).to.have.length.of.at.most(1)
  })

  it('is given back by tries that were given up on their way to Redis', async () => {
    const server = await startRedis()
    atEnd(() => server.stop())
    const [holder, mutex] = [0, 1].map(() => {
      const created = new RedisMutex(client.create(server.port), { storeTimeout: 5000 })
      atEnd(() => created.close())
      return created
    }) as [RedisMutex, RedisMutex]
    const keys = range(AT_ONCE).map((n) => `${n}: taken`)
    await holder.acquireLock(keys, { blockTime: 60_000 })
    const giveUp = async (key: string) => {
      const controller = new AbortController()
      const options = { blocking: false, signal: controller.signal }
      const refused = rejection(mutex.acquireLock(key, options))
      controller.abort()
      expect(await refused).to.equal(controller.signal.reason)
    }
    const giveUpAll = async () => {
      for (let round = 0; round < KEYS / AT_ONCE; round++) await Promise.all(keys.map(giveUp))
      // Comes after all that was sent before.
      await mutex.runExclusive('free', () => {})
    }
    await giveUpAll()
    const before = heap()
    await giveUpAll()
    // Less than half of what a try takes: other tests of this process leave something, too.
    expect((heap() - before) / KEYS, 'bytes for each try').to.be.below(400)
  })

  it('is given back by the process that had them in its own memory', async () => {
    const mutex = new Mutex(memoryStore())
    atEnd(() => mutex.close())
    await lockEach(mutex, 'first')
    const before = heap()
    await lockEach(mutex, 'second')
    expect((heap() - before) / KEYS, 'bytes for each key').to.be.below(LEAST)
  })
})

describe('the memory for mutexes that were used once', () => {
  it('is given back, though nobody has closed them', async () => {
    const store = memoryStore()
    const useEach = async () => {
      for (const n of range(KEYS)) await new Mutex(store).runExclusive(`key ${n}`, () => {})
    }
    await useEach()
    const before = heap()
    await useEach()
    expect((heap() - before) / KEYS, 'bytes for each mutex').to.be.below(LEAST)
  })
})
