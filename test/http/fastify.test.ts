import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import fastifyRedis from '@fastify/redis'
import { type Lock, Mutex, memoryStore } from '@redismutex/core'
import { type RequestLockOptions, type RouteLockOptions, requestLock } from '@redismutex/fastify'
import { expect } from 'chai'
import fastify, {
  type FastifyInstance,
  type FastifyPluginAsync,
  type FastifyReply,
  type FastifyRequest,
} from 'fastify'
import type { Redis } from 'ioredis'
import { atEnd } from '../support/cleanup.js'
import { freshPrefix, sharedRedis } from '../support/redis.js'
import { ask, byUser, redis, Signal, until, within } from './harness.js'
import { WireClient, request as wire } from './wire.js'

const options = (more: RequestLockOptions = {}): RequestLockOptions => ({
  ...(more.redis || more.mutex ? {} : { store: memoryStore() }),
  keyFrom: byUser,
  ...more,
})

function make(): FastifyInstance {
  const app = fastify()
  atEnd(() => {
    app.server.closeAllConnections()
    return within(app.close(), 'closing')
  })
  return app
}

const locked = async (more?: RequestLockOptions): Promise<FastifyInstance> => {
  const app = make()
  await app.register(requestLock, options(more))
  return app
}

const tell = async (request: FastifyRequest) => request.lock?.keys.join('+') ?? 'none'

/** An encapsulated context. */
const context = async (app: FastifyInstance, body: FastifyPluginAsync, prefix = '') => {
  await app.register(body, { prefix })
}

const listen = (app: FastifyInstance) => app.listen({ port: 0, host: '127.0.0.1' })

const portOf = (app: FastifyInstance) => (app.server.address() as AddressInfo).port

/** What a user gets without a network. */
async function inject(app: FastifyInstance, method: string, url: string) {
  const answer = await app.inject({ method: method as 'GET', url, headers: { 'x-user': 'ann' } })
  return { status: answer.statusCode, text: answer.payload, headers: answer.headers }
}

describe('The Fastify plugin', () => {
  it('decorates the app with its mutex, and requests with their lock', async () => {
    const app = await locked({ blockTime: 1234 })
    app.post('/', tell)
    app.get('/', async (request) => request.lock)
    expect(app.mutex).to.be.instanceOf(Mutex)
    expect(app.mutex.options).to.include({ blockTime: 1234, maxWaiting: 50 })
    expect(app.hasPlugin('@redismutex/fastify')).to.equal(true)
    expect(await inject(app, 'POST', '/')).to.include({ status: 200, text: 'ann' })
    expect(await inject(app, 'GET', '/')).to.include({ status: 200, text: 'null' })
  })

  it('locks POST, PUT, PATCH and DELETE, and other routes that ask', async () => {
    const app = await locked()
    for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] as const) {
      app.route({ method, url: '/', handler: tell })
      app.route({ method, url: '/asked', config: { lock: true }, handler: tell })
      app.route({ method, url: '/never', config: { lock: false }, handler: tell })
    }
    app.route({ method: ['GET', 'POST'], url: '/both', handler: tell })
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'GET', 'OPTIONS']) {
      const usual = method === 'GET' || method === 'OPTIONS' ? 'none' : 'ann'
      expect((await inject(app, method, '/')).text, method).to.equal(usual)
      expect((await inject(app, method, '/asked')).text, method).to.equal('ann')
      expect((await inject(app, method, '/never')).text, method).to.equal('none')
    }
    expect((await inject(app, 'GET', '/both')).text).to.equal('none')
    expect((await inject(app, 'POST', '/both')).text).to.equal('ann')
  })

  it('does not lock the HEAD route that Fastify adds to a GET, but one that asks', async () => {
    const app = await locked()
    const handler = async (request: FastifyRequest, reply: FastifyReply) => {
      reply.header('x-lock', request.lock ? 'locked' : 'none')
      return 'done'
    }
    app.get('/added', { config: { lock: true }, onSend: async () => {} }, handler)
    app.get('/bare', { config: { lock: true } }, handler)
    app.head('/own', { config: { lock: true } }, handler)
    const lockOf = async (method: string, url: string) =>
      (await inject(app, method, url)).headers['x-lock']
    expect(await lockOf('GET', '/added')).to.equal('locked')
    expect(await lockOf('HEAD', '/added')).to.equal('none')
    expect(await lockOf('HEAD', '/bare')).to.equal('none')
    expect(await lockOf('HEAD', '/own')).to.equal('locked')
  })

  it('lets a route have options of its own, and the same counters', async () => {
    const app = await locked({ blockTime: 5000 })
    const lock: RouteLockOptions = { keyFrom: () => 'report', blocking: false, statusCode: 423 }
    const inside = new Signal()
    const go = new Signal()
    app.get('/report', { config: { lock } }, async (request) => {
      inside.fire()
      await go.promise
      return request.lock?.key
    })
    app.route({
      method: ['GET', 'POST'],
      url: '/some',
      config: { lock: { methods: ['GET'] } },
      handler: tell,
    })
    const first = inject(app, 'GET', '/report')
    await inside.wait('the first handler')
    expect(await inject(app, 'GET', '/report')).to.include({ status: 423 })
    go.fire()
    expect(await first).to.include({ status: 200, text: 'report' })
    expect(app.mutex.stats()).to.include({ acquired: 1, refused: 1, held: 0 })
    expect((await inject(app, 'GET', '/some')).text).to.equal('ann')
    expect((await inject(app, 'POST', '/some')).text).to.equal('none')
  })

  it('may leave it to each route to name its key', async () => {
    const app = await locked({ keyFrom: undefined })
    expect(() => app.post('/asked', { config: { lock: true } }, tell)).to.throw(
      TypeError,
      'in the lock of route POST /asked: keyFrom is required: a function of the request, got undefined',
    )
    app.post('/plain', tell)
    app.post('/named', { config: { lock: { keyFrom: () => 'own' } } }, tell)
    expect((await inject(app, 'POST', '/plain')).text).to.equal('none')
    expect((await inject(app, 'POST', '/named')).text).to.equal('own')
  })

  it('refuses a wrong lock when its route is declared, naming route, option, value and rule', async () => {
    const app = await locked()
    const cases: [unknown, typeof TypeError | typeof RangeError, string][] = [
      ['yes', TypeError, "lock must be true, false or an object of options, got 'yes' (string)"],
      [null, TypeError, 'lock must be true, false or an object of options, got null'],
      [1, TypeError, 'lock must be true, false or an object of options, got 1 (number)'],
      [[], TypeError, 'lock must be an object'],
      [
        { blocktime: 1 },
        TypeError,
        "unknown option 'blocktime' (string) in lock; known are keyFrom",
      ],
      [{ redis: {} }, TypeError, "unknown option 'redis' (string) in lock"],
      [{ hook: 'onRequest' }, TypeError, "unknown option 'hook' (string) in lock"],
      [
        { blockTime: '1s' },
        TypeError,
        "blockTime must be a number of milliseconds from 1 to 2147483647, or Infinity, got '1s' (string)",
      ],
      [{ blockTime: 0 }, RangeError, 'blockTime must be a number of milliseconds from 1 to'],
      [
        { expiry: 4000 },
        RangeError,
        'expiry must be more than blockTime, got expiry 4000 and blockTime 5000',
      ],
      [{ keyFrom: 'user' }, TypeError, "keyFrom must be a function, got 'user' (string)"],
      [
        { statusCode: 200 },
        RangeError,
        'statusCode must be a whole number from 400 to 599, got 200 (number)',
      ],
    ]
    for (const [lock, type, message] of cases) {
      const declare = () =>
        app.get('/x', { config: { lock: lock as boolean }, exposeHeadRoute: false }, tell)
      expect(declare, message).to.throw(type, `in the lock of route GET /x: ${message}`)
    }
  })

  it("leaves the user's own hooks and configuration as they are", async () => {
    const app = await locked()
    const preHandler = [async () => {}]
    const onRequest = [async () => {}]
    const shared = { preHandler, onRequest, config: { lock: true as const, mine: 1 } }
    const save = async function save(request: FastifyRequest) {
      return Object.keys(request.routeOptions.config)
    }
    app.post('/a', shared, save)
    app.get('/b', shared, save)
    expect(preHandler).to.have.length(1)
    expect(onRequest).to.have.length(1)
    expect(Reflect.ownKeys(shared.config)).to.deep.equal(['lock', 'mine'])
    const { text } = await inject(app, 'POST', '/a')
    expect(JSON.parse(text)).to.deep.equal(['lock', 'mine', 'url', 'method'])
  })

  it('asks once more behind the hooks of a route and its context, which may be what makes the key', async () => {
    const named: (string | undefined)[] = []
    const keyFrom = (request: FastifyRequest) => {
      const { user } = request as { user?: string }
      named.push(user)
      return user
    }
    const app = make()
    await app.register(requestLock, options({ keyFrom }))
    const login = async (request: FastifyRequest) => {
      Object.assign(request, { user: request.headers['x-user'] })
    }
    app.post('/one', { preHandler: login }, tell)
    app.post('/many', { preHandler: [async () => {}, login], config: { lock: true } }, tell)
    app.post('/early', { onRequest: login, preHandler: async () => {} }, tell)
    app.post('/none', tell)
    await context(app, async (inner) => {
      inner.addHook('preHandler', login)
      inner.post('/context', tell)
    })
    let skipped = 0
    const skip = () => ++skipped > 0
    app.post('/skipped', { preHandler: login, config: { lock: { skip } } }, tell)
    for (const [path, asked] of [
      ['/one', [undefined, 'ann']],
      ['/many', [undefined, 'ann']],
      ['/early', ['ann']],
      ['/context', [undefined, 'ann']],
    ] as const) {
      expect((await inject(app, 'POST', path)).text, path).to.equal('ann')
      expect(named.splice(0), path).to.deep.equal(asked)
    }
    expect((await inject(app, 'POST', '/none')).text).to.equal('none')
    expect(named.splice(0)).to.deep.equal([undefined, undefined])
    expect((await inject(app, 'POST', '/skipped')).text).to.equal('none')
    expect(skipped).to.equal(1)
    const [mine, other] = ['/one', '/one'].map((path) => inject(app, 'POST', path))
    expect([(await mine)?.text, (await other)?.text]).to.deep.equal(['ann', 'ann'])
    expect(app.mutex.stats()).to.include({ acquired: 6, held: 0 })
  })

  it('asks none again that goes on without a lock because Redis is out of reach', async () => {
    const client = redis(sharedRedis().port)
    await client.quit()
    let asked = 0
    const keyFrom = () => `asked ${++asked}`
    const app = await locked({ redis: client, onStoreError: 'pass', keyFrom })
    app.post('/', { preHandler: async () => {} }, tell)
    expect((await inject(app, 'POST', '/')).text).to.equal('none')
    expect(asked).to.equal(1)
  })

  it('names what it adds, so that traces show it', async () => {
    const names: string[] = []
    const app = make()
    const { addHook } = app
    app.addHook = function (this: FastifyInstance, ...args: Parameters<typeof addHook>) {
      names.push(`${args[0]} ${(args[1] as () => void).name}`)
      return addHook.apply(this, args)
    } as typeof addHook
    await app.register(requestLock, options())
    let handler = ''
    app.addHook('onRoute', (route) => {
      handler = route.handler.name
    })
    app.post('/', async function save() {})
    expect(names).to.include.members([
      'onRoute requestLockRoute',
      'onRequest requestLockWatch',
      'preHandler requestLockWait',
      'preClose requestLockPreClose',
      'onClose requestLockOnClose',
    ])
    expect(handler).to.equal('save')
  })

  it('locks no 404, and none that a locked handler calls', async () => {
    const app = await locked()
    app.setNotFoundHandler({ preHandler: async () => {} }, async (request, reply) => {
      reply.code(404)
      return `nothing, ${request.lock?.key ?? 'none'}`
    })
    app.post('/', (_request, reply) => void reply.callNotFound())
    expect(await inject(app, 'POST', '/nowhere')).to.include({ status: 404, text: 'nothing, none' })
    expect(await inject(app, 'POST', '/')).to.include({ status: 404, text: 'nothing, ann' })
    expect(app.mutex.stats()).to.include({ held: 0, acquired: 1 })
  })

  it('is for the routes of its context, and a nearer one for those of its own', async () => {
    const app = make()
    const where = async (request: FastifyRequest) => request.lock?.key ?? 'none'
    await app.register(requestLock, options({ keyFrom: () => 'outer' }))
    app.post('/outer', where)
    let inner: Mutex | undefined
    await context(app, async (child) => {
      await child.register(requestLock, options({ keyFrom: () => 'inner' }))
      inner = child.mutex
      child.post('/inner', where)
      await context(child, async (grandchild) => {
        expect(grandchild.mutex).to.equal(child.mutex)
        grandchild.post('/innermost', where)
      })
    })
    await context(app, async (sibling) => {
      sibling.post('/sibling', where)
    })
    for (const [path, key] of [
      ['/outer', 'outer'],
      ['/inner', 'inner'],
      ['/innermost', 'inner'],
      ['/sibling', 'outer'],
    ] as const) {
      expect((await inject(app, 'POST', path)).text, path).to.equal(key)
    }
    expect(inner).to.not.equal(app.mutex)
    expect(inner?.stats()).to.include({ acquired: 2 })
    expect(app.mutex.stats()).to.include({ acquired: 2 })
  })

  it('works in contexts side by side', async () => {
    const app = make()
    for (const name of ['one', 'two']) {
      await context(app, async (child) => {
        await child.register(requestLock, options({ keyFrom: () => name }))
        child.post(`/${name}`, tell)
      })
    }
    app.post('/none', async (request) => request.lock ?? 'none')
    expect((await inject(app, 'POST', '/one')).text).to.equal('one')
    expect((await inject(app, 'POST', '/two')).text).to.equal('two')
    expect((await inject(app, 'POST', '/none')).text).to.equal('none')
  })

  it('refuses to be registered twice in one context', async () => {
    const app = await locked()
    let error: unknown
    await app.register(requestLock, options()).then(
      () => {},
      (reason) => {
        error = reason
      },
    )
    expect(error).to.include({ code: 'FST_ERR_DEC_ALREADY_PRESENT' })
  })

  it('locks both addresses of a prefixed "/"', async () => {
    const app = await locked()
    await context(app, async (child) => void child.post('/', tell), '/cart')
    expect((await inject(app, 'POST', '/cart')).text).to.equal('ann')
    expect((await inject(app, 'POST', '/cart/')).text).to.equal('ann')
  })

  it('adds the time waited to Server-Timing, if asked', async () => {
    const app = await locked({ serverTiming: true })
    app.addHook('onRequest', async (_request, reply) => {
      reply.header('server-timing', 'db;dur=3')
    })
    app.post('/', tell)
    const { headers } = await inject(app, 'POST', '/')
    expect(headers['server-timing']).to.match(/^db;dur=3, lock;dur=\d+\.\d$/)
  })

  for (const hook of ['onRequest', 'preParsing', 'preValidation', 'preHandler'] as const) {
    it(`waits in ${hook} if told to`, async () => {
      const bodies: unknown[] = []
      const app = await locked({
        hook,
        keyFrom: (request) => {
          bodies.push(request.body)
          return byUser(request)
        },
      })
      app.post('/', async (request) => ({ key: request.lock?.key, body: request.body }))
      const answer = await app.inject({
        method: 'POST',
        url: '/',
        headers: { 'x-user': 'ann' },
        payload: { item: 1 },
      })
      expect(answer.json()).to.deep.equal({ key: 'ann', body: { item: 1 } })
      const parsed = hook === 'preValidation' || hook === 'preHandler'
      expect(bodies).to.deep.equal([parsed ? { item: 1 } : undefined])
      expect(app.mutex.stats()).to.include({ held: 0, acquired: 1 })
    })
  }

  it('releases before the plugin that closes Redis does so', async () => {
    const client = redis()
    const app = make()
    // As a plugin for Redis does it: registered before, it is closed after.
    app.addHook('onClose', async () => client.disconnect())
    await app.register(requestLock, options({ redis: client, keyPrefix: freshPrefix() }))
    const inside = new Signal()
    const go = new Signal()
    app.post('/', async () => {
      inside.fire()
      await go.promise
      return 'done'
    })
    const url = await listen(app)
    const answer = ask(url, 'ann')
    await inside.wait('the handler')
    const closing = app.close()
    go.fire()
    expect((await answer).text).to.equal('done')
    app.server.closeIdleConnections()
    await within(closing, 'closing')
    expect(app.mutex.stats()).to.include({ held: 0, storeErrors: 0, acquired: 1 })
  })
})

describe('The Fastify plugin beside others', () => {
  it('gives back what works on after its answer before @fastify/redis quits', async () => {
    const app = make()
    await app.register(fastifyRedis, { url: sharedRedis().url })
    const order: string[] = []
    const { quit } = app.redis
    app.redis.quit = function (this: Redis, ...args: []) {
      order.push('quit')
      return quit.apply(this, args)
    } as typeof quit
    const keyPrefix = freshPrefix()
    await app.register(requestLock, options({ redis: app.redis, keyPrefix }))
    const go = new Signal()
    app.post('/', async (_request, reply) => {
      reply.send('early')
      await go.promise
      order.push('done')
    })
    expect((await ask(await listen(app), 'ann')).text).to.equal('early')
    const other = redis()
    expect(await other.exists(`${keyPrefix}ann`)).to.equal(1)
    app.server.closeIdleConnections()
    const closing = app.close()
    // Refused from when it closes on.
    await until(() => app.mutex.stats().held === 1, 'the hold')
    setImmediate(go.fire)
    await within(closing, 'closing')
    expect(order).to.deep.equal(['done', 'quit'])
    expect(await other.exists(`${keyPrefix}ann`)).to.equal(0)
    expect(app.mutex.stats()).to.include({ held: 0, storeErrors: 0, lost: 0 })
  })

  it('does not see routes that were declared before it', async () => {
    const app = make()
    app.post('/before', async (request) => String(request.lock))
    await app.register(requestLock, options())
    app.post('/after', tell)
    expect((await inject(app, 'POST', '/before')).text).to.equal('null')
    expect((await inject(app, 'POST', '/after')).text).to.equal('ann')
  })

  describe('whose register nobody has awaited', () => {
    it('refuses the requests of routes that ask for a lock, which would go on without it', async () => {
      const app = make()
      app.register(requestLock, options())
      app.route({
        method: ['GET', 'POST'],
        url: '/:id',
        config: { lock: true },
        handler: () => expect.fail('it ran'),
      })
      for (const method of ['GET', 'POST']) {
        const { status, text } = await inject(app, method, '/42')
        expect(status).to.equal(500)
        expect(JSON.parse(text).message).to.equal(
          `route ${method} /:id was declared before requestLock was registered: ` +
            'await app.register(requestLock, …) before the routes',
        )
      }
    })

    it('warns once of routes that would be locked', async () => {
      const app = make()
      app.register(requestLock, options())
      app.get('/', tell)
      app.post('/', tell)
      app.put('/', tell)
      app.delete('/', { config: { lock: false } }, tell)
      const warnings: string[] = []
      const listen = ({ name, message }: Error) => {
        if (name === 'RequestLockWarning') warnings.push(message)
      }
      process.on('warning', listen)
      try {
        for (const method of ['GET', 'DELETE', 'POST', 'PUT', 'POST']) {
          expect((await inject(app, method, '/')).text).to.equal('none')
        }
        expect((await inject(app, 'POST', '/nowhere')).status).to.equal(404)
        await sleep(0)
      } finally {
        process.off('warning', listen)
      }
      expect(warnings).to.have.length(1)
      expect(warnings[0]).to.match(
        /^route POST \/ was declared before .*, and takes no lock: await /,
      )
    })
  })

  it('takes no route that it has seen for an early one', async () => {
    const app = make()
    await context(app, async (inner) => {
      inner.post('/early', tell)
    })
    await app.register(requestLock, options())
    app.get('/asks', { config: { lock: true } }, tell)
    app.post('/reads', { config: { lock: { methods: ['GET'] } } }, tell)
    await context(app, async (inner) => {
      inner.post('/outer', tell)
      await inner.register(requestLock, options())
      inner.get('/inner', { config: { lock: true } }, tell)
    })
    for (const [method, url] of [
      ['POST', '/early'],
      ['HEAD', '/asks'],
      ['POST', '/reads'],
      ['POST', '/outer'],
      ['GET', '/inner'],
    ] as const) {
      expect((await inject(app, method, url)).status, url).to.equal(200)
    }
  })

  it('lets the error handlers of the app see what a handler throws, still under the lock', async () => {
    const app = await locked()
    const seen: unknown[] = []
    app.setErrorHandler((error, request, reply) => {
      seen.push([(error as Error).message, request.lock?.key])
      reply.code(418).send('handled')
    })
    app.post('/throws', () => {
      throw new Error('thrown')
    })
    app.post('/rejects', async () => {
      await sleep(1)
      throw new Error('rejected')
    })
    app.post('/key', { config: { lock: { keyFrom: () => '' } } }, tell)
    for (const url of ['/throws', '/rejects', '/key']) {
      expect(await inject(app, 'POST', url)).to.include({ status: 418, text: 'handled' })
    }
    expect(seen).to.deep.equal([
      ['thrown', 'ann'],
      ['rejected', 'ann'],
      [
        'keyFrom must give a non-empty string, an array of them, or null or undefined for no lock; got an empty string',
        undefined,
      ],
    ])
    expect(app.mutex.stats()).to.include({ held: 0, acquired: 2 })
  })

  it('closes the connection of a refused request that somebody has begun to answer', async () => {
    const app = make()
    app.addHook('onRequest', async (_request, reply) => {
      reply.raw.write('half')
    })
    await app.register(requestLock, options({ blocking: false }))
    let ran = false
    app.post('/', async () => {
      ran = true
    })
    await listen(app)
    const held = await app.mutex.acquireLock('ann')
    const client = await WireClient.connect(portOf(app))
    client.request('ann')
    await client.end()
    expect(client.pending).to.include('half')
    expect(ran).to.equal(false)
    await held.release()
  })
})

describe('A refusal in Fastify', () => {
  /** What one gets who is refused: its route is `/`. */
  async function refused(
    setup: (app: FastifyInstance) => void,
    more: RequestLockOptions = {},
    route: object = {},
  ) {
    const app = await locked({ blocking: false, ...more })
    setup(app)
    const inside = new Signal()
    const go = new Signal()
    app.post('/first', async () => {
      inside.fire()
      await go.promise
      return 'done'
    })
    app.post('/', route, tell)
    const first = inject(app, 'POST', '/first')
    await inside.wait('the first handler')
    const answer = await inject(app, 'POST', '/')
    go.fire()
    expect(await first).to.include({ status: 200, text: 'done' })
    expect(app.mutex.stats()).to.include({ held: 0, acquired: 1, refused: 1 })
    return answer
  }

  it("passes the app's response schema unharmed", async () => {
    const schema = {
      response: {
        '4xx': { type: 'object', properties: { only: { type: 'string' } } },
      },
    }
    const answer = await refused(() => {}, {}, { schema })
    expect(answer.status).to.equal(409)
    expect(JSON.parse(answer.text)).to.include({ code: 'ERR_MUTEX_LOCKED', status: 409 })
  })

  it('goes to the error handler of the app, with statusCode and headers', async () => {
    const answer = await refused((app) => {
      app.setErrorHandler(
        (error: Error & { statusCode: number; headers: object }, _request, reply) => {
          reply.code(error.statusCode).headers(error.headers as Record<string, string>)
          return reply.send({ mine: (error as Error & { code?: string }).code })
        },
      )
    })
    expect(answer.status).to.equal(409)
    expect(answer.headers).to.include({ 'retry-after': '1', 'cache-control': 'no-store' })
    expect(JSON.parse(answer.text)).to.deep.equal({ mine: 'ERR_MUTEX_LOCKED' })
  })

  it('goes to the error handler of the route', async () => {
    const errorHandler = (error: Error & { statusCode: number }, _: unknown, reply: FastifyReply) =>
      void reply.code(error.statusCode).send('the route’s own')
    const answer = await refused(() => {}, {}, { errorHandler })
    expect(answer).to.include({ status: 409, text: 'the route’s own' })
  })

  it('goes to the error handler of the context', async () => {
    const app = await locked({ blocking: false, store: memoryStore() })
    const held = await app.mutex.acquireLock('ann')
    await context(app, async (child) => {
      child.setErrorHandler((_error, _request, reply) => reply.code(418).send('inner'))
      child.post('/inner', tell)
    })
    app.post('/outer', tell)
    expect(await inject(app, 'POST', '/inner')).to.include({ status: 418, text: 'inner' })
    expect((await inject(app, 'POST', '/outer')).status).to.equal(409)
    await held.release()
  })

  for (const [what, onBusy, status, text] of [
    ['sends', (_: unknown, reply: FastifyReply) => reply.code(425).send('sent'), 425, 'sent'],
    ['gives a value', () => 'given', 409, 'given'],
    [
      'gives a promise',
      async (_: unknown, reply: FastifyReply) => {
        await sleep(1)
        reply.code(425)
        return { given: 1 }
      },
      425,
      '{"given":1}',
    ],
    [
      'gives its reply',
      async (_: unknown, reply: FastifyReply) => {
        reply.code(425).send('sent')
        return reply
      },
      425,
      'sent',
    ],
    [
      'sends later',
      (_: unknown, reply: FastifyReply) => {
        setImmediate(() => reply.code(425).send('late'))
      },
      425,
      'late',
    ],
  ] as const) {
    it(`is answered by onBusy: one that ${what}`, async () => {
      const answer = await refused(() => {}, {
        onBusy: onBusy as NonNullable<RequestLockOptions['onBusy']>,
      })
      expect(answer).to.include({ status, text })
    })
  }

  it('may be thrown by onBusy, for the error handling of Fastify', async () => {
    const answer = await refused(() => {}, {
      onBusy: (_request, _reply, error) => {
        throw error
      },
    })
    expect(answer.status).to.equal(409)
    expect(JSON.parse(answer.text)).to.include({ code: 'ERR_MUTEX_LOCKED', statusCode: 409 })
    expect(answer.text).to.not.include('ann')
  })

  it('runs no handler while hooks are still at the answer', async () => {
    let ran = false
    const answer = await refused(
      (app) => {
        app.addHook('onSend', async () => {
          await sleep(5)
        })
        app.addHook('preHandler', async () => {
          await sleep(0)
        })
      },
      {},
      {
        preHandler: async (request: FastifyRequest) => {
          ran ||= request.url === '/'
        },
      },
    )
    expect(answer.status).to.equal(409)
    expect(ran).to.equal(false)
  })
})

describe('The life of a request in Fastify', () => {
  it('leaves a reply alone whose client left while waiting, and runs no hook after', async () => {
    const ran: string[] = []
    const app = await locked({ blockTime: 20_000 })
    app.addHook('preHandler', async (request) => {
      ran.push(`preHandler ${request.url}`)
    })
    app.post('/*', async (request) => {
      ran.push(`handler ${request.url}`)
      return 'done'
    })
    await listen(app)
    const held = await app.mutex.acquireLock('ann')
    const client = await WireClient.connect(portOf(app))
    client.request('ann', 'POST /left')
    await until(() => app.mutex.stats().waiting === 1, 'the request in line')
    client.leave()
    await until(() => app.mutex.stats().waiting === 0, 'the place given up')
    await held.release()
    await sleep(5)
    expect(ran).to.deep.equal([])
  })

  for (const hook of ['onRequest', 'preParsing'] as const) {
    it(`frees the lock of one whose body nobody has read when its client leaves, behind ${hook}`, async () => {
      const app = await locked({ hook, lease: 60_000 })
      const inside = new Signal<Lock | null>()
      const go = new Signal()
      app.addHook(hook as 'onRequest', async (request) => {
        inside.fire(request.lock)
        await go.promise
      })
      app.post('/', tell)
      await listen(app)
      const client = await WireClient.connect(portOf(app))
      client.write(wire('ann', 'POST /', 'the body'))
      const lock = await inside.wait('the hook')
      client.leave()
      await until(() => lock?.signal.aborted === true, 'the client gone')
      expect(app.mutex.stats().held).to.equal(1)
      go.fire()
      await until(() => app.mutex.stats().held === 0, 'the release')
    })
  }

  it('keeps the lock when handlerTimeout has answered, until the handler is done', async () => {
    const app = await locked()
    const go = new Signal()
    const order: string[] = []
    app.post('/slow', { handlerTimeout: 30 }, async () => {
      await go.promise
      order.push('slow done')
      return 'too late'
    })
    app.post('/', async () => {
      order.push('next')
      return 'done'
    })
    const url = await listen(app)
    expect((await ask(`${url}/slow`, 'ann')).status).to.equal(503)
    const next = ask(url, 'ann')
    await until(() => app.mutex.stats().waiting === 1, 'the next one in line')
    expect(app.mutex.stats().held).to.equal(1)
    go.fire()
    expect((await next).status).to.equal(200)
    expect(order).to.deep.equal(['slow done', 'next'])
  })

  it('gives its place up when handlerTimeout answers while it waits', async () => {
    const app = await locked({ blockTime: 20_000 })
    let ran = false
    app.post('/', { handlerTimeout: 30 }, async () => {
      ran = true
    })
    const url = await listen(app)
    const held = await app.mutex.acquireLock('ann')
    expect((await ask(url, 'ann')).status).to.equal(503)
    await until(() => app.mutex.stats().waiting === 0, 'the place given up')
    await held.release()
    await sleep(5)
    expect(ran).to.equal(false)
    expect(app.mutex.stats().held).to.equal(0)
  })

  const ways: Record<string, (request: FastifyRequest, reply: FastifyReply) => unknown> = {
    'a value': async () => 'done',
    'a value at once': () => 'done',
    'reply.send': (_, reply) => void reply.send('done'),
    'reply.send, returned': (_, reply) => reply.send('done'),
    'reply.send from an async handler, returned': async (_, reply) => reply.send('done'),
    'reply.send later, reply returned': async (_, reply) => {
      setImmediate(() => reply.send('done'))
      return reply
    },
    'reply.send later, reply awaited': async (_, reply) => {
      setImmediate(() => reply.send('done'))
      await reply
    },
    'reply.send by a callback': (_, reply) => {
      setImmediate(() => reply.send('done'))
    },
    'a hijacked reply': (_, reply) => {
      reply.hijack()
      setImmediate(() => reply.raw.end('done'))
    },
    'a hijacked reply of an async handler': async (_, reply) => {
      reply.hijack()
      await sleep(1)
      reply.raw.end('done')
    },
    'a stream': async () => ReadableStream.from([Buffer.from('do'), Buffer.from('ne')]),
    'a Response': async () => new Response('done'),
  }
  for (const [how, handler] of Object.entries(ways)) {
    for (const awaitRelease of [false, true]) {
      it(`ends with ${how}${awaitRelease ? ', last bytes waiting' : ''}`, async () => {
        const app = await locked({ awaitRelease })
        app.addHook('onSend', async () => {
          await sleep(1)
        })
        app.post('/', handler as never)
        const url = await listen(app)
        for (let i = 0; i < 3; i++) {
          expect(await ask(url, 'ann')).to.include({ status: 200, text: 'done' })
        }
        await until(() => app.mutex.stats().held === 0, 'the release')
        expect(app.mutex.stats()).to.include({ acquired: 3, lost: 0 })
      })
    }
  }

  it('holds for server-sent events as long as they live, or until released', async () => {
    const app = await locked({ lease: 1000 })
    const inside = new Signal<Lock | null>()
    app.post('/', { config: { lock: { blocking: false } } }, (request, reply) => {
      reply.hijack()
      reply.raw.writeHead(200, { 'Content-Type': 'text/event-stream' })
      reply.raw.write('data: 1\n\n')
      inside.fire(request.lock)
      request.lock?.signal.addEventListener('abort', () => reply.raw.end())
    })
    const url = await listen(app)
    const client = await WireClient.connect(portOf(app))
    client.request('ann')
    await inside.wait('the handler')
    expect((await ask(url, 'ann')).status).to.equal(409)
    client.leave()
    await until(() => app.mutex.stats().held === 0, 'the release')
    expect(app.mutex.stats().lost).to.equal(0)
  })

  it('works with inject, whose responses finish twice', async () => {
    const app = await locked()
    app.post('/', tell)
    const answers = await Promise.all(Array.from({ length: 10 }, () => inject(app, 'POST', '/')))
    for (const answer of answers) expect(answer).to.include({ status: 200, text: 'ann' })
    expect(app.mutex.stats()).to.include({ held: 0, acquired: 10, lost: 0, storeErrors: 0 })
  })

  it('shares requests with other servers of the same mutex', async () => {
    const mutex = new Mutex(memoryStore())
    const [one, two] = [await locked({ mutex }), await locked({ mutex })]
    one.post('/', tell)
    two.post('/', tell)
    const held = await one.mutex.acquireLock('ann')
    const waiting = inject(two, 'POST', '/')
    await until(() => two.mutex.stats().waiting === 1, 'the other server in line')
    await held.release()
    expect((await waiting).status).to.equal(200)
    await one.close()
    await mutex.runExclusive('ann', () => {})
  })

  it('holds for an upgraded connection no longer than a lease after its end', async () => {
    const app = await locked({ lease: 300 })
    app.post('/', tell)
    app.post('/upgrade', (_request, reply) => {
      reply.hijack()
      reply.raw.socket?.write('HTTP/1.1 101 Switching Protocols\r\n\r\n')
    })
    const url = await listen(app)
    const client = await WireClient.connect(portOf(app))
    client.request('ann', 'POST /upgrade')
    await until(() => client.pending.includes('101'), 'the upgrade')
    expect(app.mutex.stats().held).to.equal(1)
    client.leave()
    expect(await ask(url, 'ann')).to.include({ status: 200, text: 'ann' })
  })
})
