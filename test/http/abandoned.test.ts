import { once } from 'node:events'
import { createServer } from 'node:http'
import { connect as connectHttp2 } from 'node:http2'
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

    for (const [what, answer] of [
      ['returns it', () => Readable.from(['x'])],
      [
        'sends it',
        (reply: { send(payload: unknown): unknown }) => reply.send(Readable.from(['x'])),
      ],
    ] as const) {
      it(`is given up when the handler makes a stream of it and ${what}`, async () => {
        const app = await fastify()
        const gone = gate()
        app.post('/', async (request, reply) => {
          request.lock?.signal.addEventListener('abort', gone.open)
          socket.destroy()
          await gone.opened
          return answer(reply)
        })
        const socket = await request(await portOf(app))
        await gone.opened
        await free()
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

    it('is given up when the server itself destroys the response', async () => {
      const app = await fastify()
      app.post('/', async (_request, reply) => {
        reply.raw.destroy()
      })
      await request(await portOf(app))
      await until(() => app.mutex.stats().acquired === 1)
      await free()
    })

    it('is given up on HTTP/2 when the handler returns its reply', async () => {
      const app = await fastify(true)
      const gone = gate()
      app.post('/', async (request, reply) => {
        request.lock?.signal.addEventListener('abort', gone.open)
        stream.close()
        await gone.opened
        return reply.send('x')
      })
      const session = connectHttp2(`http://127.0.0.1:${await portOf(app)}`)
      atEnd(() => session.destroy())
      const stream = session.request({ ':method': 'POST' })
      stream.on('error', () => {})
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
