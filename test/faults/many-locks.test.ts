import { RedisMutex } from '@redismutex/core'
import { expect } from 'chai'
import { range, until } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'
import { redisClients } from '../support/clients.js'
import { poll } from '../support/poll.js'
import { freshPrefix, startRedis } from '../support/redis.js'
import { scriptCalls } from './stats.js'

const [client] = redisClients as [(typeof redisClients)[number]]

describe('ten thousand locks that one process holds', () => {
  it('are renewed together: by 79 commands for a round over all of them', async function () {
    this.timeout(60_000)
    const server = await startRedis()
    atEnd(() => server.stop())
    const look = client.create(server.port)
    const keyPrefix = freshPrefix()
    const mutex = new RedisMutex(client.create(server.port), {
      keyPrefix,
      lease: 16_000,
      expiry: Number.POSITIVE_INFINITY,
      storeTimeout: 5000,
    })
    atEnd(() => mutex.close())
    // The server is told what the script is.
    const first = await mutex.with({ lease: 1000 }).acquireLock('first')
    let left = 1000
    await until(async () => {
      const was = left
      left = await look.pttl(`${keyPrefix}first`)
      return left > was
    })
    await first.release()
    const locks = await Promise.all(range(10_000).map((n) => mutex.acquireLock(`${n}`)))
    const leases = async () => {
      const [first, last] = await Promise.all([0, 9999].map((n) => look.pttl(`${keyPrefix}${n}`)))
      return Math.min(first as number, last as number)
    }
    await poll('half of the leases gone', async () => (await leases()) < 9000)
    const before = await scriptCalls(look)
    await poll('leases made whole', async () => (await leases()) > 9000)
    await poll('a whole round', async () => (await scriptCalls(look)) - before >= 79)
    // 128 at a time, and some once more where a busy machine took too long to answer.
    expect((await scriptCalls(look)) - before).to.be.within(79, 110)
    expect(locks.filter((lock) => lock.signal.aborted).length).to.equal(0)
    await Promise.all(locks.map((lock) => lock.release()))
    expect(await look.dbsize()).to.be.at.most(1)
  })
})
