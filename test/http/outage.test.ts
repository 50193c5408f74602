import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { startRedis } from '../support/redis.js'
import { allFrameworks, ask, type Framework, redis, Signal, until, within } from './harness.js'

const HOLDERS = 10

/** Far more than `storeTimeout`, and far less than the 73 s after which ioredis gives a command up. */
const SOON = 5000

async function stopRedisUnder(framework: Framework, blocking: boolean): Promise<void> {
  const server = await startRedis()
  try {
    const inside = new Signal()
    const go = new Signal()
    let count = 0
    const client = redis(server.port)
    const options = { redis: client, blocking, blockTime: 15_000 }
    const app = await framework.start(options, async ({ req, send }) => {
      if (req.url === '/hold') {
        if (++count === HOLDERS) inside.fire()
        await go.promise
      }
      send('done')
    })
    const users = Array.from({ length: HOLDERS }, (_, i) => `user-${i}`)
    const held = users.map((user) => ask(`${app.url}/hold`, user))
    await inside.wait('all handlers')
    const behind = blocking ? users.slice(0, 3).map((user) => ask(app.url, user)) : []
    await until(() => app.mutex.stats().waiting === behind.length, 'some in line')

    await server.kill()
    const refused = ['xia', 'yun', 'zoe'].map((user) => ask(app.url, user))
    for (const answer of await within(Promise.all(refused), 'the refusals', SOON)) {
      expect(answer.status).to.equal(503)
      expect(JSON.parse(answer.text)).to.include({ code: 'ERR_MUTEX_STORE' })
      expect(answer.headers.get('retry-after')).to.equal('1')
    }
    go.fire()
    for (const response of await within(Promise.all(held), 'the responses', SOON)) {
      expect(response).to.include({ status: 200, text: 'done' })
    }
    for (const { status } of await within(Promise.all(behind), 'who was behind', SOON)) {
      expect(status).to.be.oneOf([200, 503])
    }
    await until(() => app.mutex.stats().held + app.mutex.stats().waiting === 0, 'the end')

    await server.restart()
    let status = 0
    for (let tries = 0; tries < 500 && status !== 200; tries++) {
      ;({ status } = await ask(app.url, 'zoe'))
      if (status !== 200) await sleep(20)
    }
    expect(status).to.equal(200)
    for (const user of users) expect((await ask(app.url, user)).status).to.equal(200)
  } finally {
    await server.stop()
  }
}

describe('Redis is stopped under requests that hold:', () => {
  for (const framework of allFrameworks) {
    it(`${framework.name} answers them, refuses others with 503 soon, and serves again by itself`, () =>
      Promise.all([stopRedisUnder(framework, true), stopRedisUnder(framework, false)]))
  }
})
