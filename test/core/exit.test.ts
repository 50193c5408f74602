import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { redisClients } from '../support/clients.js'
import { forkFixture } from '../support/processes.js'
import { startProxy } from '../support/proxy.js'
import { freshKey, sharedRedis } from '../support/redis.js'

describe('a process', () => {
  const fixture = new URL('./fixtures/idle.ts', import.meta.url)

  it('is not kept alive by what is held in memory', async () => {
    expect(await forkFixture(fixture).exited).to.equal(0)
  })

  it('is kept alive until a mutex is drained', async () => {
    const draining = new URL('./fixtures/draining.ts', import.meta.url)
    // It would be 13, had the process ended with that still to be waited for.
    expect(await forkFixture(draining).exited).to.equal(0)
  })

  it('is not kept alive by a mutex whose client has been closed', async () => {
    const key = freshKey()
    const { port } = sharedRedis()
    expect(await forkFixture(fixture, [String(port)], { KEY: key }).exited).to.equal(0)
    const redis = redisClients[0]?.create(port)
    await redis?.del(`mutex:${key}`, `other:${key}`)
  })

  for (const [after, when] of [
    [0, 'soon after somebody has waited'],
    [7000, 'long after anybody has waited'],
  ] as const) {
    it(`is not kept alive for long by a mutex whose client has been closed while it was reconnecting, ${when}`, async () => {
      const proxy = await startProxy(sharedRedis().port)
      const env = { KEY: freshKey(), OUTAGE: String(after) }
      const idle = forkFixture(fixture, [String(proxy.port)], env)
      await idle.next('held')
      proxy.refuse()
      proxy.cut()
      const exited = await Promise.race([idle.exited, sleep(15_000, 'still there', { ref: false })])
      expect(exited).to.equal(0)
    })
  }
})
