import { expect } from 'chai'
import { freshKey } from '../support/redis.js'
import { type App, embedded, onRedis, startExample } from './app.js'
import { type Answer, ask, atOnce, expectRefusal, Flood, post } from './client.js'

describe('the example fastify-orders', () => {
  for (const [place, count] of [[embedded, 1] as const, [onRedis, 2] as const]) {
    describe(`${place.name}, ${count} server${count === 1 ? '' : 's'}`, () => {
      let apps: App[]
      let urls: string[]

      before(async () => {
        apps = Array.from({ length: count }, () => startExample('fastify-orders', place))
        urls = await Promise.all(apps.map((app) => app.url()))
      })

      const order = (user: string, product: string, i = 0, signal?: AbortSignal) =>
        post(`${urls[i % count]}/orders`, {
          headers: { 'x-user': user },
          body: { product },
          ...(signal && { signal }),
        })
      const deposit = (user: string, i = 0): Promise<Answer> =>
        post(`${urls[i % count]}/deposits`, { headers: { 'x-user': user } })
      const balanceOf = async (user: string): Promise<number> => {
        const { body } = await ask(`${urls[0]}/balance`, { headers: { 'x-user': user } })
        return body.balance
      }

      it('counts every order of a product that several customers want at once', async () => {
        const [anna, bert, tea] = [freshKey('anna'), freshKey('bert'), freshKey('tea')]
        const answers = await atOnce(6, (i) => order(i % 3 === 0 ? anna : bert, tea, i))
        const stock = answers.map((answer) => answer.body.stock).sort()
        expect(stock).to.deep.equal([94, 95, 96, 97, 98, 99])
        expect([await balanceOf(anna), await balanceOf(bert)]).to.deep.equal([80, 60])
      })

      it('refuses a second deposit while the first one is at work', async () => {
        const anna = freshKey('anna')
        const answers = await atOnce(4, (i) => deposit(anna, i))
        const charged = answers.filter((answer) => answer.status === 201)
        const refused = answers.filter((answer) => answer.status !== 201)
        expect(charged).not.to.have.length(0)
        expectRefusal(refused[0], 409, 'ERR_MUTEX_LOCKED')
        expect(await balanceOf(anna)).to.equal(100 + 50 * charged.length)
      })

      it('keeps nobody waiting who wants something else', async () => {
        const [anna, bert] = [freshKey('anna'), freshKey('bert')]
        const [tea, coffee] = [freshKey('tea'), freshKey('coffee')]
        const flood = new Flood(40, (signal) => order(anna, tea, 0, signal))
        await flood.first(201)
        const answer = await order(bert, coffee)
        expect(flood.pending).to.be.above(0)
        expect(answer.body).to.deep.equal({ balance: 90, stock: 99 })
        await flood.leave()
      })

      it('ends by itself on SIGTERM, and answers everybody before', async () => {
        const [anna, tea] = [freshKey('anna'), freshKey('tea')]
        const flood = new Flood(40, (signal) => order(anna, tea, 0, signal))
        await flood.first(201)
        // Taken after all of the flood, which has arrived when this one is answered.
        await order(freshKey('bert'), freshKey('coffee'))
        const exits = apps.map((app) => app.stop())
        await flood.end()
        expectRefusal(await flood.first(503), 503, 'ERR_MUTEX_CLOSED')
        expect(await Promise.all(exits)).to.deep.equal(apps.map(() => 0))
      })
    })
  }
})
