import { expect } from 'chai'
import { forkFixture } from '../support/processes.js'
import { freshPrefix, sharedRedis } from '../support/redis.js'
import { ask, redis } from './harness.js'

const fixture = new URL('./fixtures/server.ts', import.meta.url)
/** So that no connection that is kept alive keeps the server from ending. */
const headers = { connection: 'close' }

describe('a server that gets SIGTERM with requests in line and in flight', () => {
  for (const framework of ['express5', 'express4', 'fastify']) {
    it(`refuses who waits, lets who holds finish, leaves nothing behind and ends: ${framework}`, async () => {
      const keyPrefix = freshPrefix()
      const server = forkFixture(fixture, [framework, sharedRedis().url, keyPrefix])
      const { port } = await server.next('listening')
      const url = `http://127.0.0.1:${port}`
      const holders = ['ann', 'bob'].map((user) => ask(`${url}/${user}`, user, { headers }))
      await server.next('inside')
      await server.next('inside')
      const waiters = ['ann', 'ann', 'bob'].map((user) => ask(url, user, { headers }))
      for (let waiting = 0; waiting < waiters.length; ) {
        server.send({ type: 'stats?' })
        waiting = Number((await server.next('stats')).waiting)
      }
      server.kill('SIGTERM')
      // At once: those who hold go on only afterwards.
      for (const answer of await Promise.all(waiters)) {
        expect(answer.status).to.equal(503)
        expect(JSON.parse(answer.text)).to.include({ code: 'ERR_MUTEX_CLOSED' })
        expect(answer.headers.get('retry-after')).to.equal('1')
      }
      server.send({ type: 'go' })
      for (const answer of await Promise.all(holders)) {
        expect(answer).to.include({ status: 200, text: 'done' })
      }
      expect(await server.exited).to.equal(0)
      const left = await redis().keys(`*${keyPrefix}*`)
      expect(left.filter((key) => !key.startsWith('redismutex:fence:'))).to.deep.equal([])
    })
  }
})
