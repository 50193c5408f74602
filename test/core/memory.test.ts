import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Mutex, memoryStore, RedisMutex } from '@redismutex/core'
import { expect } from 'chai'
import { range } from '../conformance/ground.js'
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

  it('is given back by the process that had them in its own memory', async () => {
    const mutex = new Mutex(memoryStore())
    atEnd(() => mutex.close())
    await lockEach(mutex, 'first')
    const before = heap()
    await lockEach(mutex, 'second')
    expect((heap() - before) / KEYS, 'bytes for each key').to.be.below(LEAST)
  })
})
