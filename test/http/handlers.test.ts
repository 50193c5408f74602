import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import fastifyLock from '@redismutex/fastify'
import { expect } from 'chai'
import fastify, { type FastifyReply, type FastifyRequest } from 'fastify'
import { atEnd } from '../support/cleanup.js'
import { allFrameworks, ask, byUser, Signal, stores, until } from './harness.js'
import { request, WireClient } from './wire.js'

type Work = (done: () => void) => void

/** Ways in which a handler leaves its answer to a callback. */
const byCallback: Record<
  string,
  (work: Work) => (req: FastifyRequest, reply: FastifyReply) => unknown
> = {
  'gives nothing': (work) => (_req, reply) => {
    work(() => reply.send('done'))
  },
  'gives its reply': (work) => (_req, reply) => {
    work(() => reply.send('done'))
    return reply
  },
  'promises its reply': (work) => async (_req, reply) => {
    work(() => reply.send('done'))
    return reply
  },
  'awaits its reply': (work) => async (_req, reply) => {
    work(() => reply.send('done'))
    await reply
  },
}

async function* slowly(over: () => void): AsyncGenerator<Buffer> {
  try {
    for (;;) {
      yield Buffer.from('tick\n')
      await sleep(20)
    }
  } finally {
    await sleep(100)
    over()
  }
}

for (const { name, setup } of stores) {
  describe(`A handler of Fastify whose client leaves, ${name},`, () => {
    /** Serves `/`; the first request is at work when its client leaves, and another one waits. */
    async function leave(handler: (req: FastifyRequest, reply: FastifyReply) => unknown) {
      const app = fastify()
      await app.register(fastifyLock, { ...setup(), keyFrom: byUser })
      app.post('/', handler as never)
      await app.listen({ port: 0, host: '127.0.0.1' })
      atEnd(() => app.close())
      const { port } = app.server.address() as { port: number }
      const client = await WireClient.connect(port)
      client.write(request('ann', 'POST /'))
      await until(() => app.mutex.stats().held === 1, 'the first one at work')
      const next = WireClient.connect(port)
      ;(await next).write(request('ann', 'POST /'))
      await until(() => app.mutex.stats().waiting === 1, 'the next one in line')
      return { client, app }
    }

    it('and that gives a query builder has its query run once', async () => {
      let queries = 0
      const work = new Signal()
      const { client, app } = await leave(() => ({
        // biome-ignore lint/suspicious/noThenProperty: query builders are thenables
        then(done: (value: unknown) => void) {
          queries++
          return work.promise.then(() => done('done'))
        },
      }))
      expect(queries).to.equal(1)
      client.leave()
      await sleep(50)
      expect(app.mutex.stats()).to.include({ held: 1, waiting: 1 })
      work.fire()
      await until(() => queries === 2, 'the next one at work')
      await until(() => app.mutex.stats().held === 0, 'the release')
      expect(queries).to.equal(2)
      expect(app.mutex.stats()).to.include({ acquired: 2, lost: 0 })
    })

    for (const [what, handlerOf] of Object.entries(byCallback)) {
      it(`and that ${what} keeps its lock until its callback answers`, async () => {
        const finish: (() => void)[] = []
        const left = new Signal()
        const handler = handlerOf((done) => void finish.push(done))
        const { client, app } = await leave((req, reply) => {
          req.lock?.signal.addEventListener('abort', () => left.fire())
          return handler(req, reply)
        })
        await until(() => finish.length === 1, 'the work')
        client.leave()
        await left.wait('the signal')
        await sleep(50)
        expect(finish).to.have.length(1)
        expect(app.mutex.stats()).to.include({ held: 1, waiting: 1 })
        finish[0]?.()
        await until(() => finish.length === 2, 'the next one at work')
        finish[1]?.()
        await until(() => app.mutex.stats().held === 0, 'the release')
      })
    }

    it('and that gives a stream keeps its lock until that is over', async () => {
      let atWork = 0
      let most = 0
      let served = 0
      const { client, app } = await leave(async () => {
        served++
        most = Math.max(most, ++atWork)
        return Readable.from(slowly(() => atWork--))
      })
      await until(() => client.pending.includes('tick'), 'the stream')
      client.leave()
      await until(() => served === 2, 'the next one at work')
      expect(most).to.equal(1)
      expect(app.mutex.stats().lost).to.equal(0)
    })
  })

  for (const framework of allFrameworks) {
    describe(`A handler of ${framework.name}, ${name},`, () => {
      it('whose request has lost its socket, as when undici has read its body, is answered and done', async () => {
        const app = await framework.start(setup(), async ({ req, send }) => {
          Object.assign(req, { socket: null })
          send('done')
        })
        expect(await ask(app.url, 'ann')).to.include({ status: 200, text: 'done' })
        await until(() => app.mutex.stats().held === 0, 'the release')
      })

      it('whose request has lost its socket, may give its response up', async () => {
        const app = await framework.start(setup(), async ({ req, takeOver }) => {
          const res = takeOver()
          Object.assign(req, { socket: null })
          res.destroy()
        })
        const client = await WireClient.connect(app.port)
        client.write(request('ann', 'POST /'))
        await until(() => client.closed, 'the end')
        await until(() => app.mutex.stats().held === 0, 'the release')
      })
    })
  }
}
