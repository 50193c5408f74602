import { once } from 'node:events'
import { createServer } from 'node:http'
import { type ClientHttp2Stream, connect as connectHttp2 } from 'node:http2'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { Readable } from 'node:stream'
import { Mutex, memoryStore } from '@redismutex/core'
import { requestLock as express } from '@redismutex/express'
import { requestLock } from '@redismutex/fastify'
import { expect } from 'chai'
import Express from 'express'
import Fastify, { type FastifyInstance } from 'fastify'
import { until } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'

const POST = 'POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n'

/** A connection on which one request has been sent. */
async function request(port: number): Promise<Socket> {
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => {})
  atEnd(() => socket.destroy())
  await once(socket, 'connect')
  socket.write(POST)
  return socket
}

/** A request on a connection of HTTP/2. */
function requestHttp2(port: number): ClientHttp2Stream {
  const session = connectHttp2(`http://127.0.0.1:${port}`)
  session.on('error', () => {})
  atEnd(() => session.destroy())
  const stream = session.request({ ':method': 'POST' })
  stream.on('error', () => {})
  return stream
}

interface Sender {
  send(payload: unknown): unknown
}

/** A Web stream that gives as much as is read. */
function endlessly(): ReadableStream {
  return new ReadableStream({
    pull(controller) {
      controller.enqueue(Buffer.alloc(65536))
    },
  })
}

/** Something that a test waits for, or lets go on. */
function gate(): { opened: Promise<void>; open: () => void } {
  let open = () => {}
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  return { opened, open }
}

describe('an answer that nobody gets', () => {
  let store: ReturnType<typeof memoryStore>
  let mutex: Mutex

  beforeEach(() => {
    store = memoryStore()
    mutex = new Mutex(store)
    atEnd(() => mutex.close())
  })

  /** Resolves when the key is free, long before a lease of 10 s could be over. */
  const free = () =>
    until(async () => {
      const lock = await mutex.tryAcquire('key')
      await lock?.release()
      return lock !== null
    })

  async function fastify(http2 = false, lease?: number): Promise<FastifyInstance> {
    const app = (http2 ? Fastify({ http2: true } as object) : Fastify()) as FastifyInstance
    atEnd(() => app.close())
    await app.register(requestLock, { store, keyFrom: () => 'key', lease })
    return app
  }

  async function portOf(app: FastifyInstance): Promise<number> {
    await app.listen({ port: 0, host: '127.0.0.1' })
    return (app.server.address() as AddressInfo).port
  }

  describe('of Fastify', () => {
    it('is kept until the hooks that work on it are done', async () => {
      const app = await fastify()
      const saving = gate()
      const saved = gate()
      const gone = gate()
      app.addHook('onSend', async () => {
        saving.open()
        await saved.opened
      })
      app.post('/', async (request, reply) => {
        request.lock?.signal.addEventListener('abort', gone.open)
        socket.destroy()
        await gone.opened
        reply.send('x')
      })
      const port = await portOf(app)
      const socket = await request(port)
      await saving.opened
      expect(await mutex.tryAcquire('key')).to.equal(null)
      saved.open()
      await free()
    })

    const streams: Record<string, () => unknown> = {
      'a stream': () => Readable.from(['x']),
      'a Web stream': () => ReadableStream.from([Buffer.from('x'), Buffer.from('y')]),
      'a Web stream that never ends': () => endlessly(),
      'a Response': () => new Response('x'),
      'a Response that never ends': () => new Response(endlessly()),
    }
    for (const [what, make] of Object.entries(streams)) {
      for (const [how, answer] of [
        ['returns it', (_reply: Sender, stream: unknown) => stream],
        ['sends it', (reply: Sender, stream: unknown) => reply.send(stream)],
      ] as const) {
        it(`is given up when the handler makes ${what} of it and ${how}`, async () => {
          const app = await fastify()
          const gone = gate()
          app.post('/', async (request, reply) => {
            request.lock?.signal.addEventListener('abort', gone.open)
            socket.destroy()
            await gone.opened
            return answer(reply, make())
          })
          const socket = await request(await portOf(app))
          await gone.opened
          await free()
          expect(app.mutex.stats().lost).to.equal(0)
        })
      }

      it(`is given up when the client leaves in the middle of ${what}`, async () => {
        const app = await fastify()
        const sent = gate()
        app.post('/', async (_request, reply) => {
          // A byte at a time, so that there is a middle.
          if (!what.includes('never')) reply.raw.write('a')
          setImmediate(sent.open)
          return make()
        })
        const socket = await request(await portOf(app))
        await sent.opened
        socket.destroy()
        await free()
        expect(app.mutex.stats().lost).to.equal(0)
      })
    }

    it('is given up when the client leaves in the middle of a download', async () => {
      const app = await fastify()
      app.post('/', (_request, reply) => {
        reply.send(
          new Readable({
            read() {
              this.push(Buffer.alloc(65536))
            },
          }),
        )
      })
      const socket = await request(await portOf(app))
      await once(socket, 'data')
      socket.destroy()
      await free()
    })

    const destroyers: Record<string, (res: { destroy(): unknown }) => unknown> = {
      'at once': (res) => void res.destroy(),
      'at once, by an async handler': async (res) => void res.destroy(),
      'later, by a callback': (res) => void setImmediate(() => res.destroy()),
      'later, by an async handler': async (res) => {
        await new Promise((resolve) => setImmediate(resolve))
        res.destroy()
      },
    }
    for (const http2 of [false, true]) {
      for (const [how, destroy] of Object.entries(destroyers)) {
        it(`is given up when the server destroys the response ${how}${http2 ? ', on HTTP/2' : ''}`, async () => {
          const app = await fastify(http2)
          app.post('/', (_request, reply) => destroy(reply.raw) as Promise<void> | undefined)
          const port = await portOf(app)
          if (http2) requestHttp2(port)
          else await request(port)
          await until(() => app.mutex.stats().acquired === 1)
          await free()
          expect(app.mutex.stats().lost).to.equal(0)
        })
      }
    }

    for (const http2 of [false, true]) {
      for (const late of [false, true]) {
        const how = `${late ? 'before' : 'while'} somebody saves at its end${http2 ? ', on HTTP/2' : ''}`
        it(`is given up once it was saved, when the client leaves ${how}`, async () => {
          const app = Fastify(
            (http2 ? { http2: true } : {}) as object,
          ) as unknown as FastifyInstance
          atEnd(() => app.close())
          const saving = gate()
          const saved = gate()
          // Wraps `end` before the lock, as a session does that comes first.
          app.addHook('onRequest', async (_request, reply) => {
            const { end } = reply.raw
            reply.raw.end = function (this: typeof reply.raw, ...args: Parameters<typeof end>) {
              saving.open()
              void saved.opened.then(() => end.apply(this, args))
              return this
            } as typeof end
          })
          await app.register(requestLock, { store, keyFrom: () => 'key' })
          const gone = gate()
          app.post('/', async (request) => {
            request.lock?.signal.addEventListener('abort', gone.open)
            if (late) {
              leave()
              await gone.opened
            }
            return 'x'
          })
          const port = await portOf(app)
          let leave: () => void
          if (http2) {
            const stream = requestHttp2(port)
            leave = () => stream.close()
          } else {
            const socket = await request(port)
            leave = () => socket.destroy()
          }
          await saving.opened
          leave()
          await gone.opened
          expect(await mutex.tryAcquire('key')).to.equal(null)
          saved.open()
          await free()
          expect(app.mutex.stats().lost).to.equal(0)
        })
      }
    }

    it('is given up on HTTP/2 when the handler returns its reply', async () => {
      const app = await fastify(true)
      const gone = gate()
      app.post('/', async (request, reply) => {
        request.lock?.signal.addEventListener('abort', gone.open)
        stream.close()
        await gone.opened
        return reply.send('x')
      })
      const stream = requestHttp2(await portOf(app))
      await gone.opened
      await free()
    })

    it('does not keep the app from closing when its handler never ends', async () => {
      const app = await fastify(false, 300)
      const gone = gate()
      app.post('/', async (request) => {
        request.lock?.signal.addEventListener('abort', gone.open)
        socket.destroy()
        await new Promise(() => {})
      })
      const socket = await request(await portOf(app))
      await gone.opened
      await app.close()
      await free()
    })

    it('is no reason to run a refused handler: onBusy that rejects with nothing is an error', async () => {
      const app = Fastify()
      atEnd(() => app.close())
      await app.register(requestLock, {
        store,
        keyFrom: () => 'key',
        blocking: false,
        onBusy: () => Promise.reject(),
      })
      let ran = false
      app.post('/', async () => {
        ran = true
      })
      await using _held = await mutex.acquireLock('key')
      expect((await app.inject({ method: 'POST', url: '/' })).statusCode).to.be.at.least(400)
      expect(ran).to.equal(false)
    })
  })

  describe('of Express', () => {
    async function serve(app: Express.Express): Promise<number> {
      const server = createServer(app).listen(0, '127.0.0.1')
      atEnd(() => {
        server.closeAllConnections()
        server.close()
      })
      await once(server, 'listening')
      return (server.address() as AddressInfo).port
    }

    it('is sent although its handler passes on an error afterwards', async () => {
      const app = Express()
      app.set('env', 'test')
      const lock = express({ store, keyFrom: () => 'key', blocking: false })
      app.post(
        '/',
        lock,
        express.wrap((_req, res, next) => {
          res.send('given')
          next(new Error('too late'))
        }),
      )
      const socket = await request(await serve(app))
      const [data] = (await once(socket, 'data')) as [Buffer]
      expect(String(data)).to.match(/^HTTP\/1\.1 200 (.|\r|\n)*given$/)
      await free()
    })

    it('is given up when it can not be ended by who has wrapped the end since', async () => {
      const app = Express()
      app.set('env', 'test')
      // As compression does, with what is neither text nor bytes.
      const lock = express({ store, keyFrom: () => 'key', lease: 60_000 })
      app.post('/', lock, (_req, res, next) => {
        res.end = () => {
          res.flushHeaders()
          throw new Error('it can not be squeezed')
        }
        next()
      })
      app.post(
        '/',
        express.wrap(async (_req, res) => void res.end({})),
      )
      const socket = await request(await serve(app))
      await once(socket.resume(), 'close')
      await free()
    })

    it('is not missed for a property of its own called stream', async () => {
      const app = Express()
      app.use((_req, res, next) => {
        Object.assign(res, { stream: undefined })
        next()
      })
      app.post('/', express({ store, keyFrom: () => 'key' }), (_req, res) => void res.send('given'))
      const socket = await request(await serve(app))
      const [data] = (await once(socket, 'data')) as [Buffer]
      expect(String(data)).to.match(/^HTTP\/1\.1 200 /)
    })
  })
})
