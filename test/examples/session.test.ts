import { expect } from 'chai'
import { type App, embedded, onRedis, startExample } from './app.js'
import { ask, atOnce, expectRefusal, Flood, post } from './client.js'

describe('the example express-session', () => {
  for (const place of [embedded, onRedis]) {
    describe(`locking ${place.name}`, () => {
      let app: App
      let url: string

      before(async () => {
        app = startExample('express-session', place)
        url = `${await app.url()}/wishes`
      })

      const wish = (text: string, cookie?: string, signal?: AbortSignal) =>
        post(url, {
          ...(cookie && { headers: { cookie } }),
          body: { wish: text },
          ...(signal && { signal }),
        })
      const newSession = async (): Promise<string> => {
        const { headers } = await wish('a pony')
        return headers['set-cookie']?.[0]?.split(';')[0] ?? ''
      }

      it('loses nothing that one session is told at once', async () => {
        const cookie = await newSession()
        const texts = ['a bike', 'a book', 'a ball', 'a drum', 'a kite']
        await atOnce(texts.length, (i) => wish(`${texts[i]}`, cookie))
        const { body } = await ask(url, { headers: { cookie } })
        expect(body).to.have.members(['a pony', ...texts])
      })

      it('keeps no other session waiting', async () => {
        const cookie = await newSession()
        const flood = new Flood(40, (signal) => wish('more', cookie, signal))
        await flood.first(201)
        const answer = await wish('a star', `other=1; ${await newSession()}`)
        expect(flood.pending).to.be.above(0)
        expect(answer.body).to.deep.equal(['a pony', 'a star'])
        await flood.leave()
      })

      it('ends by itself on SIGTERM, and answers everybody before', async () => {
        const cookie = await newSession()
        const flood = new Flood(40, (signal) => wish('more', cookie, signal))
        await flood.first(201)
        // Taken after all of the flood, which has arrived when this one is answered.
        await newSession()
        const exit = app.stop()
        await flood.end()
        expectRefusal(await flood.first(503), 503, 'ERR_MUTEX_CLOSED')
        expect(await exit).to.equal(0)
      })
    })
  }
})
