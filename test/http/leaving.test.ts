import { ClientGoneError, type Lock, MutexUnlockError } from '@redismutex/core'
import { expect } from 'chai'
import { allFrameworks, ask, frameworks, Signal, stores, until } from './harness.js'
import { WireClient } from './wire.js'

for (const { name, setup } of stores) {
  for (const framework of allFrameworks) {
    describe(`A client that leaves ${framework.name}, ${name}`, () => {
      for (const how of ['closes its connection', 'is killed']) {
        const leave = (client: WireClient) => client.leave(how === 'is killed')

        it(`while it waits and ${how} gives its place up, and its handler never runs`, async () => {
          const inside = new Signal()
          const go = new Signal()
          const ran: string[] = []
          const app = await framework.start(setup(), async ({ req, send }) => {
            ran.push(req.url as string)
            if (req.url === '/first') {
              inside.fire()
              await go.promise
            }
            send('done')
          })
          const first = ask(`${app.url}/first`, 'ann')
          await inside.wait('the first handler')
          const client = await WireClient.connect(app.port)
          client.request('ann', 'POST /left')
          await until(() => app.mutex.stats().waiting === 1, 'the one that will leave')
          const third = ask(`${app.url}/third`, 'ann')
          await until(() => app.mutex.stats().waiting === 2, 'the one behind')
          leave(client)
          await until(() => app.mutex.stats().waiting === 1, 'the place given up')
          go.fire()
          expect((await first).status).to.equal(200)
          expect((await third).status).to.equal(200)
          expect(ran).to.deep.equal(['/first', '/third'])
          await until(() => app.mutex.stats().held === 0, 'the release')
        })

        it(`while it holds and ${how} aborts the signal, and keeps the lock until the end`, async () => {
          const inside = new Signal<Lock>()
          const gone = new Signal()
          const go = new Signal()
          const app = await framework.start(setup(), async ({ req, lock, send }) => {
            if (req.url === '/left') {
              if (!lock) throw new Error('no lock')
              lock.signal.addEventListener('abort', () => gone.fire())
              inside.fire(lock)
              await go.promise
            }
            send('done')
          })
          const client = await WireClient.connect(app.port)
          client.request('ann', 'POST /left')
          const lock = await inside.wait('the handler')
          leave(client)
          await gone.wait('the signal')
          expect(lock.signal.reason).to.be.instanceOf(ClientGoneError)
          expect(lock.key).to.equal('ann')
          const second = ask(app.url, 'ann')
          await until(() => app.mutex.stats().waiting === 1, 'the next one in line')
          expect(app.mutex.stats().held).to.equal(1)
          go.fire()
          expect((await second).status).to.equal(200)
          expect(lock.key).to.equal(null)
          await until(() => app.mutex.stats().held === 0, 'the release')
          expect(app.mutex.stats().lost).to.equal(0)
        })
      }

      it("while it holds releases at once with onClientAbort 'release'", async () => {
        const inside = new Signal<Lock>()
        const go = new Signal()
        const options = { ...setup(), onClientAbort: 'release' } as const
        const app = await framework.start(options, async ({ req, lock, send }) => {
          if (req.url === '/left') {
            if (lock) inside.fire(lock)
            await go.promise
          }
          send('done')
        })
        const client = await WireClient.connect(app.port)
        client.request('ann', 'POST /left')
        const lock = await inside.wait('the handler')
        client.leave()
        expect((await ask(app.url, 'ann')).status).to.equal(200)
        expect(lock.signal.reason).to.be.instanceOf(ClientGoneError)
        go.fire()
        await until(() => app.mutex.stats().held === 0, 'the release')
      })

      it('after its answer changes nothing', async () => {
        const app = await framework.start(setup(), ({ send }) => send('done'))
        const client = await WireClient.connect(app.port)
        client.request('ann')
        expect(await client.answer()).to.include({ status: 200, body: 'done' })
        client.leave()
        expect((await ask(app.url, 'ann')).status).to.equal(200)
        expect(app.mutex.stats()).to.include({ held: 0, lost: 0 })
      })

      it('in the middle of a streamed answer ends its hold', async () => {
        const inside = new Signal()
        const app = await framework.start(
          { ...setup(), lease: 1000 },
          ({ req, res, lock, send }) => {
            if (req.url !== '/left') {
              send('done')
              return undefined
            }
            return new Promise<void>((resolve) => {
              res.writeHead(200)
              res.write('some of it')
              inside.fire()
              lock?.signal.addEventListener('abort', () => resolve())
            })
          },
        )
        const client = await WireClient.connect(app.port)
        client.request('ann', 'POST /left')
        await inside.wait('the handler')
        client.leave()
        expect((await ask(app.url, 'ann')).status).to.equal(200)
      })

      it('never stops the others: bursts of aborted requests leave nothing behind', async () => {
        const app = await framework.start(setup(), ({ send }) => {
          setImmediate(() => send('done'))
        })
        for (let round = 0; round < 5; round++) {
          const clients = await Promise.all(
            Array.from({ length: 20 }, () => WireClient.connect(app.port)),
          )
          for (const [i, client] of clients.entries()) {
            client.request('ann', 'POST /a', 'POST /b')
            if (i % 3 === 0) client.leave(true)
            else setImmediate(() => client.leave(i % 2 === 0))
          }
          expect((await ask(app.url, 'ann')).status).to.equal(200)
        }
        await until(() => app.mutex.stats().held + app.mutex.stats().waiting === 0, 'the end')
        expect(app.mutex.stats().lost).to.equal(0)
      })
    })
  }

  for (const framework of frameworks) {
    describe(`A client that leaves a handler of ${framework.name}, ${name}`, () => {
      it('keeps the lock renewed as long as the handler works', async () => {
        const inside = new Signal()
        const go = new Signal()
        const lease = 500
        const app = await framework.start({ ...setup(), lease }, async ({ req, lock, send }) => {
          if (req.url === '/left') {
            inside.fire()
            await new Promise((resolve) => setTimeout(resolve, 2.5 * lease))
            expect(lock?.key).to.equal('ann')
            go.fire()
          }
          send('done')
        })
        const client = await WireClient.connect(app.port)
        client.request('ann', 'POST /left')
        await inside.wait('the handler')
        client.leave()
        await go.wait('the end of the handler')
        expect((await ask(app.url, 'ann')).status).to.equal(200)
        expect(app.mutex.stats().lost).to.equal(0)
      })

      for (const answered of ['nothing', 'half']) {
        it(`frees the lock when the handler then ends with ${answered} answered`, async () => {
          const inside = new Signal()
          const done = new Signal()
          const app = await framework.start(setup(), async ({ req, res, lock, send }) => {
            if (req.url !== '/left') {
              send('done')
              return
            }
            if (answered === 'half') {
              res.writeHead(200)
              res.write('some of it')
            }
            inside.fire()
            await new Promise((resolve) => lock?.signal.addEventListener('abort', resolve))
            done.fire()
          })
          const client = await WireClient.connect(app.port)
          client.request('ann', 'POST /left')
          await inside.wait('the handler')
          client.leave()
          await done.wait('the end of the handler')
          expect((await ask(app.url, 'ann')).status).to.equal(200)
          expect(app.mutex.stats().lost).to.equal(0)
        })
      }
    })
  }

  for (const framework of allFrameworks.filter(({ seesHandlers }) => !seesHandlers)) {
    describe(`A client that leaves a handler of ${framework.name}, ${name}`, () => {
      it('holds no longer than the lease if the handler never answers', async () => {
        const inside = new Signal()
        const app = await framework.start({ ...setup(), lease: 300 }, ({ req, send }) => {
          if (req.url === '/left') inside.fire()
          else send('done')
        })
        const client = await WireClient.connect(app.port)
        client.request('ann', 'POST /left')
        await inside.wait('the handler')
        client.leave()
        expect((await ask(app.url, 'ann')).status).to.equal(200)
        expect(app.mutex.stats()).to.include({ held: 0, lost: 1 })
      })

      it('is told that it was the lease, and not its expiry, which was to come much later', async () => {
        const inside = new Signal()
        let lock: Lock | null | undefined
        const terms = { ...setup(), lease: 300, blockTime: 20_000, expiry: 60_000 }
        const app = await framework.start(terms, (exchange) => {
          if (exchange.req.url !== '/left') return exchange.send('done')
          lock = exchange.lock
          inside.fire()
        })
        const client = await WireClient.connect(app.port)
        client.request('ann', 'POST /left')
        await inside.wait('the handler')
        client.leave()
        expect((await ask(app.url, 'ann')).status).to.equal(200)
        const error = await lock?.release().catch((error) => error)
        expect(error).to.be.instanceOf(MutexUnlockError)
        expect(error.message).to.equal('the lock was not renewed any more, and its lease is over')
      })
    })
  }
}
