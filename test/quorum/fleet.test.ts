import { expect } from 'chai'
import { range } from '../conformance/ground.js'
import { forkFixture } from '../support/processes.js'
import { freshPrefix } from '../support/redis.js'
import type { Contend } from './fixtures/contender.js'
import { clientsOf, leftoversOf, Masters } from './masters.js'

describe('a fleet of processes on a quorum', () => {
  let masters: Masters

  before(async () => {
    masters = await Masters.start(3)
  })

  after(() => masters.stop())

  it('counts exactly, in the order of its tokens, and nobody starves', async function () {
    this.timeout(60_000)
    const contend: Contend = {
      ports: masters.servers.map(({ port }) => port),
      prefix: freshPrefix(),
      options: { blockTime: 20_000, delay: 200, expiry: 30_000 },
    }
    const members = range(4).map(() =>
      forkFixture(new URL('./fixtures/contender.ts', import.meta.url), [JSON.stringify(contend)]),
    )
    await Promise.all(members.map((member) => member.next('ready')))
    // Short holds, and holds that outlast the pauses between two asks.
    for (const { waiters, ms, hold } of [
      { waiters: 4, ms: 2000, hold: 2 },
      { waiters: 1, ms: 3000, hold: 40 },
    ]) {
      for (const member of members) member.send({ type: 'count', waiters, ms, hold })
      const results = await Promise.all(members.map((member) => member.next('counted')))
      for (const { counted, disorder, failed } of results) {
        expect(disorder, 'tokens or counts out of order').to.equal(0)
        expect(failed, 'waited longer than blockTime').to.equal(0)
        expect(counted, 'acquisitions of one process').to.be.above(1)
      }
    }
    for (const member of members) member.send({ type: 'end' })
    await Promise.all(members.map((member) => member.exited))
    expect(await leftoversOf(clientsOf(masters.servers), contend.prefix)).to.deep.equal([
      `${contend.prefix}count`,
    ])
  })

  it('gets the lock of a member that is killed when its lease is over', async () => {
    const contend: Contend = {
      ports: masters.servers.map(({ port }) => port),
      prefix: freshPrefix(),
      options: { blockTime: 15_000, delay: 200, expiry: 20_000, lease: 1500 },
    }
    const [holder, heir] = range(2).map(() =>
      forkFixture(new URL('./fixtures/contender.ts', import.meta.url), [JSON.stringify(contend)]),
    )
    await Promise.all([holder?.next('ready'), heir?.next('ready')])
    holder?.send({ type: 'hold' })
    const first = await holder?.next('held')
    heir?.send({ type: 'hold' })
    holder?.kill('SIGKILL')
    const second = await heir?.next('held')
    expect(BigInt(String(second?.token)) > BigInt(String(first?.token))).to.equal(true)
    heir?.send({ type: 'end' })
    await heir?.exited
    expect(await leftoversOf(clientsOf(masters.servers), contend.prefix)).to.deep.equal([])
  })
})
