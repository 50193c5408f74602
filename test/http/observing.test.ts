import { type TracingChannelSubscribers, tracingChannel } from 'node:diagnostics_channel'
import { setTimeout as sleep } from 'node:timers/promises'
import type { AcquireEvent, HoldEvent } from '@redismutex/core'
import { expect } from 'chai'
import { atEnd } from '../support/cleanup.js'
import { allFrameworks, ask, Signal, stores, until } from './harness.js'

function subscribe(name: string, some: Partial<TracingChannelSubscribers<object>>): void {
  const subscribers = some as TracingChannelSubscribers<object>
  tracingChannel(name).subscribe(subscribers)
  atEnd(() => tracingChannel(name).unsubscribe(subscribers))
}

for (const { name, setup } of stores) {
  for (const framework of allFrameworks) {
    describe(`What is to be seen of requests in ${framework.name}, ${name}`, () => {
      it('is the wait of each, what goes on, and what was', async () => {
        const inside = new Signal()
        const go = new Signal()
        let waited: number | undefined
        const options = { ...setup(), serverTiming: true, maxWaiting: 1 }
        const app = await framework.start(options, async ({ req, lock, send }) => {
          if (req.url === '/first') {
            inside.fire()
            await go.promise
          } else {
            waited = lock?.waited
          }
          send('done')
        })
        const first = ask(`${app.url}/first`, 'ann')
        await inside.wait('the first handler')
        const second = ask(app.url, 'ann')
        await until(() => app.mutex.stats().waiting === 1, 'the second in line')
        expect((await ask(app.url, 'ann')).status).to.equal(409)
        expect(app.mutex.stats()).to.include({ held: 1, waiting: 1, acquired: 1, refused: 1 })
        await sleep(20)
        go.fire()
        await first
        const { headers } = await second
        expect(waited).to.be.at.least(15)
        expect(headers.get('server-timing')).to.equal(`lock;dur=${waited?.toFixed(1)}`)
        await until(() => app.mutex.stats().held === 0, 'the release')
        expect(app.mutex.stats()).to.include({ waiting: 0, acquired: 2, lost: 0, storeErrors: 0 })
      })

      it('is told on the tracing channels: each acquisition, and each hold until its request is over', async () => {
        const acquired: AcquireEvent[] = []
        const refused: AcquireEvent[] = []
        const held: HoldEvent[] = []
        subscribe('redismutex.acquire', {
          asyncEnd: (event: object) => void acquired.push(event as AcquireEvent),
          error: (event: object) => void refused.push(event as AcquireEvent),
        })
        subscribe('redismutex.hold', {
          asyncEnd: (event: object) => void held.push(event as HoldEvent),
        })
        const app = await framework.start(
          { ...setup(), blocking: false },
          async ({ req, send }) => {
            if (req.url === '/outer') {
              expect(held).to.have.length(0)
              await ask(app.url, 'ann')
            }
            send('done')
          },
        )
        expect((await ask(`${app.url}/outer`, 'ann')).status).to.equal(200)
        await until(() => held.length === 1, 'the end of the hold')
        expect(acquired).to.have.length(2)
        expect(refused).to.have.length(1)
        expect(refused[0]?.error).to.include({ code: 'ERR_MUTEX_LOCKED' })
        expect(held[0]?.mutex).to.equal(app.mutex)
        expect(held[0]?.error).to.equal(undefined)
        expect(held[0]?.keys).to.deep.equal(['ann'])
        expect(held[0]?.held).to.be.greaterThan(0)
      })

      it('changes nothing when a subscriber throws', async () => {
        const broken = () => {
          throw new Error('a broken subscriber')
        }
        for (const channel of ['redismutex.acquire', 'redismutex.hold']) {
          subscribe(channel, {
            ...{ start: broken, end: broken, error: broken },
            ...{ asyncStart: broken, asyncEnd: broken },
          })
        }
        const app = await framework.start(
          { ...setup(), blocking: false },
          async ({ req, send }) => {
            const inner = req.url === '/outer' ? (await ask(app.url, 'ann')).status : 'done'
            send(String(inner))
          },
        )
        expect(await ask(`${app.url}/outer`, 'ann')).to.include({ status: 200, text: '409' })
        expect(await ask(app.url, 'ann')).to.include({ status: 200, text: 'done' })
        expect(app.mutex.stats()).to.include({ held: 0, acquired: 2, refused: 1, lost: 0 })
      })
    })
  }
}
