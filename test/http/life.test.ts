import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { allFrameworks, ask, frameworks, Signal, stores, until } from './harness.js'
import { WireClient } from './wire.js'

for (const { name, setup } of stores) {
  for (const framework of allFrameworks) {
    describe(`A request's lock in ${framework.name}, ${name}`, () => {
      it('lets the requests of one user in one at a time, first come first served', async () => {
        const order: string[] = []
        let inside = 0
        const app = await framework.start(setup(), async ({ req, send }) => {
          expect(++inside).to.equal(1)
          order.push(req.url as string)
          await sleep(1)
          inside--
          send('done')
        })
        const asked = Array.from({ length: 20 }, (_, i) => `/${i}`)
        const client = await WireClient.connect(app.port)
        client.request('ann', ...asked.map((path) => `POST ${path}`))
        for (const _ of asked) expect(await client.answer()).to.include({ status: 200 })
        expect(order).to.deep.equal(asked)
        expect(app.mutex.stats()).to.include({ held: 0, waiting: 0, acquired: 20, refused: 0 })
      })

      it('keeps many requests over many connections apart', async () => {
        let inside = 0
        const app = await framework.start(setup(), async ({ send }) => {
          expect(++inside).to.equal(1)
          await sleep(1)
          inside--
          send('done')
        })
        const answers = await Promise.all(Array.from({ length: 30 }, () => ask(app.url, 'ann')))
        expect(answers.map(({ status }) => status)).to.deep.equal(Array(30).fill(200))
      })

      it('does not let one user wait for another', async () => {
        const bob = new Signal()
        const app = await framework.start(setup(), async ({ req, send }) => {
          if (req.headers['x-user'] === 'ann') await bob.promise
          else bob.fire()
          send('done')
        })
        const [ann, other] = await Promise.all([ask(app.url, 'ann'), ask(app.url, 'bob')])
        expect(ann.status).to.equal(200)
        expect(other.status).to.equal(200)
      })

      it('lets requests on that name no key', async () => {
        const app = await framework.start(setup(), ({ lock, send }) => {
          send(String(lock ?? 'none'))
        })
        const answer = await ask(app.url, undefined)
        expect(answer).to.include({ status: 200, text: 'none' })
        expect(app.mutex.stats().acquired).to.equal(0)
      })

      it('hands the lock to the handler, which may end it early', async () => {
        const released = new Signal()
        const go = new Signal()
        const app = await framework.start(setup(), async ({ req, lock, send }) => {
          if (req.url === '/first') {
            expect(lock?.key).to.equal('ann')
            expect(lock?.signal.aborted).to.equal(false)
            expect(lock?.waited).to.be.a('number')
            await lock?.release()
            released.fire()
            await go.promise
          }
          send('done')
        })
        const first = ask(`${app.url}/first`, 'ann')
        await released.wait('the early release')
        expect(await ask(`${app.url}/second`, 'ann')).to.include({ status: 200 })
        go.fire()
        expect(await first).to.include({ status: 200 })
        expect(app.mutex.stats()).to.include({ held: 0, acquired: 2, storeErrors: 0 })
      })

      it('holds until the response has ended', async () => {
        const inside = new Signal()
        const go = new Signal()
        const app = await framework.start(setup(), async ({ send }) => {
          inside.fire()
          await go.promise
          send('done')
        })
        const first = ask(app.url, 'ann')
        await inside.wait('the first handler')
        const second = ask(app.url, 'ann')
        await until(() => app.mutex.stats().waiting === 1, 'the second request in line')
        expect(app.mutex.stats()).to.include({ held: 1 })
        go.fire()
        expect((await Promise.all([first, second])).map(({ status }) => status)).to.deep.equal([
          200, 200,
        ])
        await until(() => app.mutex.stats().held === 0, 'the release')
      })
    })
  }

  for (const framework of frameworks) {
    describe(`The end of a request in ${framework.name}, ${name}`, () => {
      const ends: Record<string, () => unknown> = {
        'that throws': () => {
          throw new Error('thrown')
        },
        'that rejects': async () => {
          await sleep(1)
          throw new Error('rejected')
        },
        'that rejects at once': () => Promise.reject(new Error('rejected')),
        'that rejects with nothing': () => Promise.reject(),
      }
      for (const [how, end] of Object.entries(ends)) {
        it(`frees the lock of a handler ${how}`, async () => {
          const app = await framework.start(setup(), ({ req, send }) =>
            req.url === '/bad' ? end() : send('done'),
          )
          expect((await ask(`${app.url}/bad`, 'ann')).status).to.equal(500)
          expect((await ask(app.url, 'ann')).status).to.equal(200)
          expect(app.mutex.stats()).to.include({ held: 0, acquired: 2, lost: 0 })
        })
      }

      it('frees the lock of a handler that throws after its headers were sent', async () => {
        const app = await framework.start(setup(), async ({ req, res, send }) => {
          if (req.url !== '/bad') {
            send('done')
            return
          }
          res.writeHead(200)
          res.write('half an answer')
          await sleep(1)
          throw new Error('late')
        })
        const client = await WireClient.connect(app.port)
        client.request('ann', 'POST /bad')
        await client.end()
        expect((await ask(app.url, 'ann')).status).to.equal(200)
      })

      it('comes when a handler that answers early is done', async () => {
        const go = new Signal()
        const order: string[] = []
        const app = await framework.start(setup(), async ({ req, send }) => {
          order.push(`in ${req.url}`)
          send('done')
          if (req.url === '/early') await go.promise
          order.push(`out ${req.url}`)
        })
        expect((await ask(`${app.url}/early`, 'ann')).status).to.equal(200)
        const second = ask(`${app.url}/next`, 'ann')
        await until(() => app.mutex.stats().waiting === 1, 'the second request in line')
        go.fire()
        expect((await second).status).to.equal(200)
        expect(order).to.deep.equal(['in /early', 'out /early', 'in /next', 'out /next'])
      })
    })
  }
}
