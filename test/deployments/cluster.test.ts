import { type Lock, RedisMutex, redisStore } from '@redismutex/core'
import { expect } from 'chai'
import { until } from '../conformance/ground.js'
import { processConformance } from '../conformance/processes.js'
import { atEnd } from '../support/cleanup.js'
import { redisClients } from '../support/clients.js'
import { type ClusterDeployment, startCluster } from '../support/cluster.js'
import { freshKey } from '../support/redis.js'
import { failover } from './failover.js'
import { outsideOf } from './outside.js'

describe('on a Cluster', () => {
  let cluster: ClusterDeployment

  before(async function () {
    this.timeout(60_000)
    cluster = await startCluster()
    atEnd(() => cluster.stop())
  })

  // What a node of its own accord did then, like a failover that nobody asked for, shows nowhere else.
  afterEach(function () {
    if (this.currentTest?.state !== 'failed') return
    for (const node of cluster.nodes) console.error(`Redis of port ${node.port}:\n${node.log()}`)
  })

  for (const client of redisClients) {
    const create = () => client.createCluster(cluster.nodes.map(({ port }) => port))

    processConformance(
      `a Cluster with ${client.name}`,
      (keyPrefix) => redisStore(create(), { keyPrefix }),
      outsideOf(create, (redis) => redis.nodes('master')),
    )

    describe(`a mutex through ${client.name}`, () => {
      // A lost message would show: nobody asks again by itself before the test is over.
      const options = { blockTime: 30_000, delay: 19_000, expiry: 40_000 }

      function mutex(): RedisMutex {
        const created = new RedisMutex(create(), options)
        atEnd(() => created.close())
        return created
      }

      /** Four keys for each of the nodes. */
      async function keysOnAllNodes(): Promise<string[]> {
        const found = new Map<unknown, string[]>()
        while ([...found.values()].filter((keys) => keys.length >= 4).length < 3) {
          const key = freshKey()
          const node = await cluster.masterOf(`mutex:${key}`)
          found.set(node, [...(found.get(node) ?? []), key])
        }
        return [...found.values()].flatMap((keys) => keys.slice(0, 4))
      }

      it('holds several keys, whatever nodes they are on, and wakes who waits for them', async () => {
        const keys = await keysOnAllNodes()
        const [here, there] = [mutex(), mutex()]
        const all = await here.acquireLock(keys)
        expect(all.fencingTokens.size).to.equal(12)
        const one = Promise.all(keys.map((key) => there.acquireLock(key)))
        const look = create()
        for (const key of keys) {
          await until(async () => (await look.zcard(`redismutex:queue:{mutex:${key}}`)) === 1)
        }
        await all.release()
        for (const lock of await one) {
          expect(lock.waited).to.be.below(options.delay)
          await lock.release()
        }
      })

      it('is asked for keys on all nodes at once, where the client makes pipelines by itself', async () => {
        const keys = await keysOnAllNodes()
        const ports = cluster.nodes.map(({ port }) => port)
        const redis = client.createCluster(ports, { enableAutoPipelining: true })
        const created = new RedisMutex(redis, options)
        atEnd(() => created.close())
        for (const round of [1, 2]) {
          const locks = await Promise.all(keys.map((key) => created.acquireLock(key)))
          await Promise.all(locks.map((lock) => lock.release()))
          expect(created.stats()).to.include({ acquired: round * keys.length, storeErrors: 0 })
        }
      })

      it('finds its keys when their slot moves to another node meanwhile', async () => {
        const key = freshKey()
        const lockName = `mutex:${key}`
        const queue = `redismutex:queue:{${lockName}}`
        const [here, there, elsewhere] = [mutex(), mutex(), mutex()]
        const held = await here.acquireLock(key)
        const look = create()
        const waiting = there.acquireLock(key)
        await until(async () => (await look.zcard(queue)) === 1)
        const from = await cluster.masterOf(lockName)
        const to = (await cluster.masters()).find((node) => node !== from)!
        let early: Promise<Lock> | undefined
        await cluster.migrate(lockName, to, {
          // Whoever comes has to try again.
          halfway: async () => {
            early = elsewhere.acquireLock(key)
          },
        })
        expect(await cluster.masterOf(lockName)).to.equal(to)
        await until(async () => (await look.zcard(queue)) === 2)
        await held.release()
        const first = await waiting
        expect(BigInt(first.fencingToken ?? 0)).to.not.equal(0n)
        await first.release()
        await (await early!).release()
        expect(await look.exists(lockName)).to.equal(0)
      })

      it('hands over in a slot that has begun to move, within a process and to another', async () => {
        const key = freshKey()
        const lockName = `mutex:${key}`
        const queue = `redismutex:queue:{${lockName}}`
        const [here, there] = [mutex(), mutex()]
        const held = await here.acquireLock(key)
        const look = create()
        const next = there.acquireLock(key)
        await until(async () => (await look.zcard(queue)) === 1)
        const local = here.acquireLock(key)
        const from = await cluster.masterOf(lockName)
        const to = (await cluster.masters()).find((node) => node !== from)!
        // Its keys can be used as long as they are there, but not made anew.
        await cluster.migrate(lockName, to, { begun: () => held.release() })
        for (const waiter of [next, local]) {
          const lock = await waiter
          expect(lock.waited).to.be.below(options.delay)
          await lock.release()
        }
        await until(async () => (await look.exists(lockName, queue)) === 0)
      })
    })

    // By default ioredis tries a command 16 times in 1.6 s, which is less than a failover takes.
    const patient = () =>
      client.createCluster(
        cluster.nodes.map(({ port }) => port),
        { retryDelayOnFailover: 500 },
      )

    failover(client.name, patient, () => ({
      nodes: cluster.nodes,
      masterOf: (lock) => cluster.masterOf(lock),
      successorOf: (old, lock) => cluster.successorOf(old, lock),
      async rejoin(old) {
        await old.restart()
        await cluster.settled()
      },
    }))
  }
})
