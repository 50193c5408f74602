import { once } from 'node:events'
import { type ClientHttp2Session, connect, type IncomingHttpHeaders } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { memoryStore } from '@redismutex/core'
import { type RequestLockOptions, requestLock } from '@redismutex/fastify'
import { expect } from 'chai'
import fastify from 'fastify'
import { atEnd } from '../support/cleanup.js'
import { startProxy } from '../support/proxy.js'
import { freshPrefix, sharedRedis } from '../support/redis.js'
import { PATIENCE, redis, Signal, until, within } from './harness.js'

type Handle = (
  request: { url: string; lock: import('@redismutex/core').Lock | null },
  reply: {
    raw: import('node:http2').Http2ServerResponse
    send(payload: unknown): void
    hijack(): { raw: import('node:http2').Http2ServerResponse }
  },
) => unknown

async function serve(handle: Handle, options: RequestLockOptions = {}) {
  const app = fastify({ http2: true })
  await app.register(
    requestLock as never,
    {
      store: memoryStore(),
      keyFrom: ({ headers }: { headers: IncomingHttpHeaders }) => headers['x-user'],
      methods: ['POST', 'HEAD', 'GET'],
      ...options,
    } as never,
  )
  app.route({
    method: ['GET', 'POST', 'HEAD'],
    url: '/*',
    exposeHeadRoute: false,
    handler: (request, reply) => handle(request as never, reply as never) as Promise<unknown>,
  })
  await app.listen({ port: 0, host: '127.0.0.1' })
  atEnd(() => within(app.close(), 'closing'))
  const { port } = app.server.address() as AddressInfo
  return { app, mutex: app.mutex, port }
}

function open(port: number): ClientHttp2Session {
  const session = connect(`http://127.0.0.1:${port}`)
  session.on('error', () => {})
  atEnd(() => session.destroy())
  return session
}

/** More than any buffer between a server and its client takes. */
const LARGE = 20_000_000

const send = (session: ClientHttp2Session, path: string, method = 'POST') => {
  const stream = session.request({ ':path': path, ':method': method, 'x-user': 'ann' })
  stream.on('error', () => {})
  stream.end()
  return stream
}

async function ask(session: ClientHttp2Session, path: string, method = 'POST') {
  const stream = send(session, path, method)
  let body = ''
  stream.setEncoding('utf8')
  stream.on('data', (data) => {
    body += data
  })
  const over = AbortSignal.timeout(PATIENCE)
  const [headers] = (await once(stream, 'response', { signal: over })) as [IncomingHttpHeaders]
  if (!stream.closed) await once(stream, 'close', { signal: over })
  return { status: Number(headers[':status']), headers, body }
}

describe('HTTP/2', () => {
  for (const awaitRelease of [false, true]) {
    const how = awaitRelease ? ', last bytes waiting' : ''

    it(`lets the streams of one connection in one at a time${how}`, async () => {
      let inside = 0
      const { mutex, port } = await serve(
        async ({ url }) => {
          expect(++inside).to.equal(1)
          await new Promise((resolve) => setTimeout(resolve, 1))
          inside--
          return `done ${url}`
        },
        { awaitRelease },
      )
      const session = open(port)
      const asked = Array.from({ length: 10 }, (_, i) => `/${i}`)
      const answers = await Promise.all(asked.map((path) => ask(session, path)))
      expect(answers.map(({ body }) => body)).to.deep.equal(asked.map((path) => `done ${path}`))
      for (const method of ['GET', 'HEAD']) {
        const { status, body } = await ask(session, '/', method)
        expect({ status, body }).to.deep.equal({
          status: 200,
          body: method === 'HEAD' ? '' : 'done /',
        })
      }
      await until(() => mutex.stats().held === 0, 'the release')
      expect(mutex.stats()).to.include({ acquired: 12, lost: 0 })
    })

    it(`sends large answers whole${how}`, async () => {
      const { mutex, port } = await serve(async () => 'x'.repeat(300_000), { awaitRelease })
      const { body } = await ask(open(port), '/')
      expect(body.length).to.equal(300_000)
      await until(() => mutex.stats().held === 0, 'the release')
    })
  }

  for (const [how, method] of [
    ['cancels its stream', 'POST'],
    ['cancels its HEAD', 'HEAD'],
    ['destroys its connection', 'POST'],
    ['destroys its connection under a HEAD', 'HEAD'],
  ] as const) {
    const leave = (session: ClientHttp2Session, stream: ReturnType<typeof send>) =>
      how.startsWith('cancels') ? stream.close(8) : session.destroy()

    it(`takes a client that ${how} while it waits out of the line`, async () => {
      const ran: string[] = []
      const { mutex, port } = await serve(async ({ url }) => {
        ran.push(url)
        return 'done'
      })
      const held = await mutex.acquireLock('ann')
      const session = open(port)
      const stream = send(session, '/left', method)
      await until(() => mutex.stats().waiting === 1, 'the request in line')
      leave(session, stream)
      await until(() => mutex.stats().waiting === 0, 'the place given up')
      await held.release()
      expect((await ask(open(port), '/next')).status).to.equal(200)
      expect(ran).to.deep.equal(['/next'])
    })

    it(`keeps the lock of a client that ${how} until the handler is done`, async () => {
      const inside = new Signal()
      const gone = new Signal()
      const go = new Signal()
      const order: string[] = []
      const { mutex, port } = await serve(async ({ url, lock }) => {
        if (url === '/left') {
          lock?.signal.addEventListener('abort', () => gone.fire())
          inside.fire()
          await go.promise
        }
        order.push(url)
        return 'done'
      })
      const session = open(port)
      const stream = send(session, '/left', method)
      await inside.wait('the handler')
      leave(session, stream)
      await gone.wait('the signal')
      const next = ask(open(port), '/next')
      await until(() => mutex.stats().waiting === 1, 'the next one in line')
      go.fire()
      expect((await next).status).to.equal(200)
      expect(order).to.deep.equal(['/left', '/next'])
      await until(() => mutex.stats().held === 0, 'the release')
      expect(mutex.stats().lost).to.equal(0)
    })

    it(`frees the lock of a handler that answers a client by itself that ${how}`, async () => {
      const inside = new Signal()
      const { mutex, port } = await serve(
        ({ url, lock }, reply) => {
          if (url !== '/left') return Promise.resolve('done')
          inside.fire()
          lock?.signal.addEventListener('abort', () => reply.raw.end('too late'))
          return undefined
        },
        { lease: 10_000 },
      )
      const session = open(port)
      const stream = send(session, '/left', method)
      await inside.wait('the handler')
      leave(session, stream)
      // The late end has no effect on HTTP/2, and ends the hold all the same.
      await until(() => mutex.stats().held === 0, 'the release')
      expect(mutex.stats().lost).to.equal(0)
      expect((await ask(open(port), '/next')).status).to.equal(200)
    })
  }

  for (const method of ['POST', 'HEAD']) {
    for (const [status, early] of [
      [200, false],
      [204, false],
      [204, true],
    ] as const) {
      it(`fixes an answer of ${status} to ${method}${early ? ' with its head' : ''} that waits for the release`, async () => {
        const go = new Signal()
        const { mutex, port } = await serve(
          async (_request, reply) => {
            const { raw } = reply.hijack()
            raw.statusCode = status
            if (early) raw.writeHead(status)
            raw.end()
            expect(raw.headersSent).to.equal(true)
            expect(raw.writableEnded).to.equal(true)
            expect(() => raw.setHeader('x-late', '1')).to.throw('already been initiated')
            raw.statusCode = 500
            go.fire()
          },
          { awaitRelease: true },
        )
        const answer = await ask(open(port), '/', method)
        await go.wait('the checks')
        expect(answer.status).to.equal(status)
        expect(answer.headers).to.not.have.property('x-late')
        await until(() => mutex.stats().held === 0, 'the release')
      })
    }
  }

  for (const [what, body] of [
    ['a stream', () => Readable.from(['a', 'b'])],
    ['a web stream', () => new Response('ab')],
  ] as const) {
    it(`frees the lock of a HEAD that is answered with ${what}`, async () => {
      const { mutex, port } = await serve(async () => body())
      const session = open(port)
      expect((await ask(session, '/', 'HEAD')).status).to.equal(200)
      expect((await ask(session, '/')).body).to.equal('ab')
      await until(() => mutex.stats().held === 0, 'the release')
      expect(mutex.stats()).to.include({ acquired: 2, lost: 0 })
    })
  }

  for (const [how, answer] of [
    ['gives', async () => 'x'.repeat(LARGE)],
    ['gives bytes', async () => Buffer.alloc(LARGE, 'x')],
    ['sends', (_request, reply) => void reply.send('x'.repeat(LARGE))],
    ['ends by itself', (_request, reply) => void reply.hijack().raw.end('x'.repeat(LARGE))],
  ] as const satisfies [string, Handle][]) {
    it(`does not let a slow reader hold the lock for a large answer that the handler ${how}`, async () => {
      const { mutex, port } = await serve((request, reply) =>
        request.url === '/large' ? answer(request as never, reply as never) : 'done',
      )
      const stream = send(open(port), '/large')
      stream.pause()
      await once(stream, 'response')
      expect((await ask(open(port), '/next')).body).to.equal('done')
      expect(mutex.stats()).to.include({ acquired: 2, lost: 0 })
      // And it gets all of it, however slowly.
      let length = 0
      stream.on('data', (data) => {
        length += data.length
      })
      stream.resume()
      await once(stream, 'close')
      expect(length).to.equal(LARGE)
    })
  }

  for (const [what, body] of [
    ['a large answer', () => 'x'.repeat(200_000)],
    ['a stream', () => Readable.from(['x'.repeat(200_000)])],
  ] as const) {
    it(`keeps the end of ${what} back until the release, with blocking: false`, async () => {
      const proxy = await startProxy(sharedRedis().port)
      const { port } = await serve(
        async () => {
          proxy.pause()
          return body()
        },
        {
          store: undefined,
          redis: redis(proxy.port),
          keyPrefix: freshPrefix(),
          blocking: false,
          blockTime: PATIENCE,
          storeTimeout: PATIENCE,
        },
      )
      const order: string[] = []
      const stream = send(open(port), '/')
      stream.once('data', () => order.push('begun')).once('end', () => order.push('ended'))
      await once(stream, 'data')
      await sleep(50)
      order.push('released')
      proxy.resume()
      if (!stream.closed) await once(stream, 'close')
      expect(order).to.deep.equal(['begun', 'released', 'ended'])
    })
  }

  for (const [what, close] of [
    ['response is destroyed', (raw) => void raw.destroy()],
    ['stream is destroyed', (raw) => void raw.stream.destroy()],
    ['stream is closed', (raw) => raw.stream.close()],
  ] as [string, (raw: import('node:http2').Http2ServerResponse) => void][]) {
    it(`sends what was answered when its ${what} before the release`, async () => {
      const { mutex, port } = await serve(
        (_request, reply) => {
          const { raw } = reply.hijack()
          raw.end('answered')
          close(raw)
        },
        { awaitRelease: true },
      )
      expect(await ask(open(port), '/')).to.include({ status: 200, body: 'answered' })
      await until(() => mutex.stats().held === 0, 'the release')
    })
  }

  it('sends what was answered when more is written before the release', async () => {
    const failed = new Signal<unknown>()
    const { mutex, port } = await serve(
      async (_request, reply) => {
        const { raw } = reply.hijack()
        raw.end('answered')
        await sleep(5)
        raw.write('late', 'utf8', failed.fire as never)
      },
      { awaitRelease: true },
    )
    const stream = send(open(port), '/')
    stream.resume()
    await once(stream, 'close')
    expect(stream.rstCode).to.equal(0)
    expect(await failed.wait('the error')).to.include({ code: 'ERR_STREAM_WRITE_AFTER_END' })
    await until(() => mutex.stats().held === 0, 'the release')
  })

  it('gives a stream as slowly as it is read, and holds meanwhile', async () => {
    let made = 0
    const { mutex, port } = await serve((_request, reply) => {
      const stream = new Readable({
        read() {
          made += 65_536
          this.push(made > 10_000_000 ? null : Buffer.alloc(65_536))
        },
      })
      reply.send(stream)
    })
    const stream = send(open(port), '/')
    stream.pause()
    await once(stream, 'response')
    await new Promise((resolve) => setTimeout(resolve, 30))
    expect(made).to.be.lessThan(5_000_000)
    expect(mutex.stats().held).to.equal(1)
    stream.resume()
    await once(stream, 'close')
    await until(() => mutex.stats().held === 0, 'the release')
  })

  it('keeps a request whose body was read from being taken for one that was aborted', async () => {
    const inside = new Signal<boolean>()
    const gone = new Signal()
    const go = new Signal()
    const { mutex, port } = await serve(async ({ url, lock }) => {
      if (url !== '/left') return 'done'
      await new Promise((resolve) => setTimeout(resolve, 5))
      lock?.signal.addEventListener('abort', () => gone.fire())
      inside.fire(lock?.signal.aborted ?? true)
      await go.promise
      return 'late'
    })
    const session = open(port)
    const stream = session.request({
      ':path': '/left',
      ':method': 'POST',
      'x-user': 'ann',
      'content-type': 'application/json',
    })
    stream.on('error', () => {})
    stream.end('{"a":1}')
    expect(await inside.wait('the handler')).to.equal(false)
    stream.close(8)
    await gone.wait('the signal')
    expect(mutex.stats().held).to.equal(1)
    go.fire()
    expect((await ask(session, '/next')).body).to.equal('done')
    await until(() => mutex.stats().held === 0, 'the release')
  })

  it('gives a client up that leaves while keyFrom still looks for its key', async () => {
    const looking = new Signal()
    const found = new Signal()
    const ran: string[] = []
    const { mutex, port } = await serve(async ({ url }) => void ran.push(url), {
      keyFrom: async ({ url }) => {
        if (url === '/left') {
          looking.fire()
          await found.promise
        }
        return 'ann'
      },
    })
    const session = open(port)
    const stream = send(session, '/left')
    await looking.wait('keyFrom')
    stream.close(8)
    await once(stream, 'close')
    // What was sent after it has come after it.
    await ask(session, '/next')
    found.fire()
    await ask(session, '/last')
    expect(ran).to.deep.equal(['/next', '/last'])
    expect(mutex.stats()).to.include({ acquired: 2, held: 0 })
  })

  it('frees the lock when a client cancels in the middle of a large answer', async () => {
    const { mutex, port } = await serve(async () => 'x'.repeat(5_000_000))
    const session = open(port)
    const stream = send(session, '/')
    await once(stream, 'response')
    stream.close(8)
    await until(() => mutex.stats().held === 0, 'the release')
    expect((await ask(open(port), '/')).status).to.equal(200)
  })

  it('refuses with a problem document, and without a body for HEAD', async () => {
    const { mutex, port } = await serve(async () => 'done', { blocking: false })
    const held = await mutex.acquireLock('ann')
    const session = open(port)
    const post = await ask(session, '/')
    expect(post.status).to.equal(409)
    expect(JSON.parse(post.body)).to.include({ code: 'ERR_MUTEX_LOCKED', status: 409 })
    expect(post.headers).to.include({ 'cache-control': 'no-store', 'retry-after': '1' })
    const head = await ask(session, '/', 'HEAD')
    expect(head).to.include({ status: 409, body: '' })
    await held.release()
  })
})
