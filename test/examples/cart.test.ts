import { expect } from 'chai'
import { freshKey } from '../support/redis.js'
import { type App, embedded, onRedis, startExample } from './app.js'
import { type Answer, ask, atOnce, expectRefusal, Flood, post } from './client.js'

describe('the example express-cart', () => {
  for (const [place, count] of [[embedded, 1] as const, [onRedis, 2] as const]) {
    describe(`${place.name}, ${count} server${count === 1 ? '' : 's'}`, () => {
      let apps: App[]
      let urls: string[]

      before(async () => {
        apps = Array.from({ length: count }, () => startExample('express-cart', place))
        urls = await Promise.all(apps.map((app) => app.url()))
      })

      const add = (user: string, i = 0, signal?: AbortSignal): Promise<Answer> =>
        post(`${urls[i % count]}/cart`, {
          headers: { 'x-user': user },
          body: { item: 'tea' },
          ...(signal && { signal }),
        })

      it('loses nothing that one user puts into the cart at once', async () => {
        const anna = freshKey('anna')
        const answers = await atOnce(6, (i) => add(anna, i))
        expect(answers.map((answer) => answer.body.tea).sort()).to.deep.equal([1, 2, 3, 4, 5, 6])
        const { body } = await ask(`${urls[0]}/cart`, { headers: { 'x-user': anna } })
        expect(body).to.deep.equal({ tea: 6 })
      })

      it('refuses a user with too many requests, and keeps nobody else waiting', async () => {
        const [anna, bert] = [freshKey('anna'), freshKey('bert')]
        const flood = new Flood(60, (signal) => add(anna, 0, signal))
        expectRefusal(await flood.first(409), 409, 'ERR_MUTEX_QUEUE_FULL')

        const answer = await add(bert, 0)
        expect(flood.pending).to.be.above(0)
        expect(answer.body).to.deep.equal({ tea: 1 })
        await flood.leave()
      })

      it('wants to know who the user is', async () => {
        const answer = await post(`${urls[0]}/cart`, { body: { item: 'tea' } })
        expect(answer.status).to.equal(401)
      })

      it('ends by itself on SIGTERM, and answers everybody before', async () => {
        const anna = freshKey('anna')
        const flood = new Flood(40, (signal) => add(anna, 0, signal))
        await flood.first(201)
        // Taken after all of the flood, which has arrived when this one is answered.
        await add(freshKey('bert'))
        const exits = apps.map((app) => app.stop())
        await flood.end()
        expectRefusal(await flood.first(503), 503, 'ERR_MUTEX_CLOSED')
        expect(await Promise.all(exits)).to.deep.equal(apps.map(() => 0))
      })
    })
  }
})
