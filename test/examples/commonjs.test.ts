import { expect } from 'chai'
import { freshKey } from '../support/redis.js'
import { type App, embedded, onRedis, startExample } from './app.js'
import { atOnce, expectRefusal, Flood, post } from './client.js'

describe('the example commonjs', () => {
  for (const place of [embedded, onRedis]) {
    describe(place.name, () => {
      let app: App
      let urls: string[]

      before(async () => {
        app = startExample('commonjs', place)
        urls = await app.urls(2)
      })

      const visit = (user: string, i = 0, signal?: AbortSignal) =>
        post(`${urls[i % 2]}/visits/${user}`, signal ? { signal } : {})

      it('has Express and Fastify take turns', async () => {
        const anna = freshKey('anna')
        const answers = await atOnce(6, (i) => visit(anna, i))
        const visits = answers.map((answer) => answer.body.visits).sort()
        expect(visits).to.deep.equal([1, 2, 3, 4, 5, 6])
      })

      it('ends by itself on SIGTERM, and answers everybody before', async () => {
        const anna = freshKey('anna')
        const flood = new Flood(40, (signal) => visit(anna, 0, signal))
        await flood.first(200)
        // Taken after all of the flood, which has arrived when this one is answered.
        await visit(freshKey('bert'))
        const exit = app.stop()
        await flood.end()
        expectRefusal(await flood.first(503), 503, 'ERR_MUTEX_CLOSED')
        expect(await exit).to.equal(0)
      })
    })
  }
})
