import { expect } from 'chai'
import { atEnd } from '../support/cleanup.js'
import { redisClients } from '../support/clients.js'
import { startCluster } from '../support/cluster.js'
import { command } from '../support/command.js'
import { freshKey } from '../support/redis.js'
import { startSentinel } from '../support/sentinel.js'

describe('startSentinel', () => {
  it('starts a master that is replaced when it dies, and comes back as a replica', async function () {
    this.timeout(60_000)
    const sentinel = await startSentinel()
    atEnd(() => sentinel.stop())
    const clients = redisClients.map((client) =>
      client.createSentinel(
        sentinel.sentinels.map(({ port }) => port),
        sentinel.name,
      ),
    )
    const key = freshKey()
    for (const client of clients) await client.set(key, client.options.name ?? '')
    expect(await command(sentinel.nodes[0]!.port, 'GET', key)).to.equal(sentinel.name)
    const old = await sentinel.master()
    expect(old).to.equal(sentinel.nodes[0])
    await old.kill()
    const master = await sentinel.successorOf(old)
    for (const client of clients) await client.set(key, 'later')
    expect(await command(master.port, 'GET', key)).to.equal('later')
    await sentinel.rejoin(old)
    await sentinel.settled()
    expect(await sentinel.master()).to.equal(master)
  })
})

describe('startCluster', () => {
  it('starts masters that are replaced when they die, and slots that move', async function () {
    this.timeout(60_000)
    const cluster = await startCluster()
    atEnd(() => cluster.stop())
    const clients = redisClients.map((client) =>
      client.createCluster(cluster.nodes.map(({ port }) => port)),
    )
    const key = freshKey()
    for (const client of clients) await client.set(key, 'there')
    const old = await cluster.masterOf(key)
    const target = (await cluster.masters()).find((node) => node !== old)!
    await cluster.migrate(key, target)
    expect(await cluster.masterOf(key)).to.equal(target)
    for (const client of clients) expect(await client.get(key)).to.equal('there')

    await cluster.settled()
    await target.kill()
    const successor = await cluster.successorOf(target, key)
    for (const client of clients) expect(await client.get(key)).to.equal('there')
    await target.restart()
    await cluster.settled()
    expect(await cluster.masterOf(key)).to.equal(successor)
  })
})
