import { RedisMutex } from '@redismutex/core'
import { expect } from 'chai'
import type { Cluster, Redis } from 'ioredis'
import { until } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'
import { answer } from '../support/command.js'
import { freshKey, type RedisServer } from '../support/redis.js'

/** A deployment whose master for a key may die. */
export interface Failing {
  readonly nodes: readonly RedisServer[]
  masterOf(lock: string): Promise<RedisServer>
  successorOf(old: RedisServer, lock: string): Promise<RedisServer>
  /** Starts the old one again, and resolves when all is well. */
  rejoin(old: RedisServer): Promise<void>
}

/** What a mutex does when the master that has its keys is replaced. */
export function failover(
  name: string,
  create: () => Redis | Cluster,
  deployment: () => Failing,
): void {
  describe(`a failover, through ${name}`, () => {
    // A lost message would show: nobody asks again by itself before the test is over.
    const options = {
      blockTime: 60_000,
      delay: 30_000,
      expiry: Number.POSITIVE_INFINITY,
      lease: 15_000,
      // Longer than a failover takes: who asks meanwhile is to be patient.
      storeTimeout: 20_000,
    }

    function mutex(): RedisMutex {
      const created = new RedisMutex(create(), options)
      atEnd(() => created.close())
      return created
    }

    it('leaves a lock with its holder, and loses nobody who waits', async function () {
      this.timeout(90_000)
      const key = freshKey()
      const lockName = `mutex:${key}`
      const queueName = `redismutex:queue:{${lockName}}`
      const [holder, first, second] = [mutex(), mutex(), mutex()]
      const look = create()

      const lock = await holder.acquireLock(key)
      const token = BigInt(lock.fencingToken ?? 0)
      const tokens: bigint[] = []
      const waiters = [first, second].map(async (who, index) => {
        const taken = await who.acquireLock(key)
        expect(taken.waited, `${index}`).to.be.below(options.delay)
        tokens.push(BigInt(taken.fencingToken ?? 0))
        await taken.release()
      })
      await until(async () => (await look.zcard(queueName)) === 2)
      await replicated(deployment().nodes, lockName, queueName)

      const old = await deployment().masterOf(lockName)
      await old.kill()
      await deployment().successorOf(old, lockName)
      expect(lock.signal.aborted).to.equal(false)
      expect(tokens).to.deep.equal([])
      await lock.release()
      await Promise.all(waiters)
      const [earlier = 0n, later = 0n] = tokens
      expect(token < earlier && earlier < later, 'tokens rise').to.equal(true)
      // An ask that was sent again lands late perhaps, and is taken back.
      await until(async () => (await look.exists(lockName, queueName)) === 0)
      await deployment().rejoin(old)
    })
  })
}

/** Resolves once two of the servers have both keys: the master and a replica of it. */
async function replicated(
  nodes: readonly RedisServer[],
  lock: string,
  queue: string,
): Promise<void> {
  await until(async () => {
    const counts = await Promise.all(nodes.map(({ port }) => copies(port, lock, queue)))
    return counts.filter((whole) => whole).length >= 2
  })
}

/** A Cluster's replica answers only for keys by name, so its own count of all keys must do. */
async function copies(port: number, lock: string, queue: string): Promise<boolean> {
  const found = await Promise.all([lock, queue].map((key) => answer(port, 'KEYS', glob(key))))
  return found.every((keys) => Array.isArray(keys) && keys.length === 1)
}

const glob = (key: string): string => key.replace(/[[\]{}*?\\]/g, '?')
