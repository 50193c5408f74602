import { Mutex, memoryStore } from '@redismutex/core'
import { requestLock } from '@redismutex/express'
import fastifyLock from '@redismutex/fastify'
import { expect } from 'chai'
import fastify from 'fastify'
import { redis } from './harness.js'

type Wrong = readonly [
  options: Record<string, unknown>,
  type: typeof TypeError | typeof RangeError,
  message: string,
]

const flags = 'must be true or false'
const ms = 'must be a number of milliseconds from'

const wrong: readonly Wrong[] = [
  [
    { keyfrom: () => 'a' },
    TypeError,
    "unknown option 'keyfrom' (string) in options; known are keyFrom,",
  ],
  [{ keyFrom: 'user' }, TypeError, "keyFrom must be a function, got 'user' (string)"],
  [{ keyFrom: null }, TypeError, 'keyFrom must be a function, got null'],
  [
    { methods: 'POST' },
    TypeError,
    "methods must be an array of HTTP methods such as ['POST'], got 'POST' (string)",
  ],
  [
    { methods: [7] },
    TypeError,
    "methods must be an array of HTTP methods such as ['POST'], got 7 (number)",
  ],
  [
    { methods: [''] },
    TypeError,
    "methods must be an array of HTTP methods such as ['POST'], got '' (string)",
  ],
  [{ methods: ['PO ST'] }, TypeError, 'methods must be an array of HTTP methods'],
  [
    { methods: ['POST', 'PATHC'] },
    TypeError,
    "methods must be an array of HTTP methods such as ['POST'], got 'PATHC' (string)",
  ],
  [{ skip: true }, TypeError, 'skip must be a function, got true (boolean)'],
  [
    { statusCode: '409' },
    TypeError,
    "statusCode must be a whole number from 400 to 599, got '409' (string)",
  ],
  [
    { statusCode: 200 },
    RangeError,
    'statusCode must be a whole number from 400 to 599, got 200 (number)',
  ],
  [
    { statusCode: 409.5 },
    RangeError,
    'statusCode must be a whole number from 400 to 599, got 409.5 (number)',
  ],
  [
    { statusCode: Number.NaN },
    RangeError,
    'statusCode must be a whole number from 400 to 599, got NaN (number)',
  ],
  [{ onBusy: {} }, TypeError, 'onBusy must be a function, got an object of Object'],
  [
    { onStoreError: 'ignore' },
    TypeError,
    "onStoreError must be 'fail' or 'pass', got 'ignore' (string)",
  ],
  [
    { onClientAbort: true },
    TypeError,
    "onClientAbort must be 'keep' or 'release', got true (boolean)",
  ],
  [{ awaitRelease: 1 }, TypeError, `awaitRelease ${flags}, got 1 (number)`],
  [{ serverTiming: 'yes' }, TypeError, `serverTiming ${flags}, got 'yes' (string)`],
  [{ blocking: 'no' }, TypeError, `blocking ${flags}, got 'no' (string)`],
  [
    { blockTime: '5s' },
    TypeError,
    `blockTime ${ms} 1 to 2147483647, or Infinity, got '5s' (string)`,
  ],
  [{ blockTime: -1 }, RangeError, `blockTime ${ms} 1 to 2147483647, or Infinity, got -1 (number)`],
  [
    { delay: Number.POSITIVE_INFINITY },
    RangeError,
    `delay ${ms} 1 to 2147483647, got Infinity (number)`,
  ],
  [
    { delay: 6000 },
    RangeError,
    'delay must be less than blockTime, got delay 6000 and blockTime 5000',
  ],
  [{ expiry: 1 }, RangeError, `expiry ${ms} 20 to`],
  [
    { expiry: 5000 },
    RangeError,
    'expiry must be more than blockTime, got expiry 5000 and blockTime 5000',
  ],
  [{ lease: Number.POSITIVE_INFINITY }, RangeError, `lease ${ms} 20 to`],
  [
    { expiry: 8000, lease: 9000 },
    RangeError,
    'lease must not be more than expiry, got lease 9000 and expiry 8000',
  ],
  [{ storeTimeout: 0 }, RangeError, `storeTimeout ${ms} 1 to 2147483647, got 0 (number)`],
  [
    { maxWaiting: 0 },
    RangeError,
    'maxWaiting must be a whole number from 1 up, or Infinity, got 0 (number)',
  ],
  [
    { redis: {} },
    TypeError,
    'redis must be an ioredis client (Redis or Cluster), got an object of Object without evalsha',
  ],
  [{ redis: null }, TypeError, 'redis must be an ioredis client (Redis or Cluster), got null'],
  [
    { store: {} },
    TypeError,
    'store must be a store such as memoryStore(), got an object of Object',
  ],
  [{ store: null }, TypeError, 'store must be a store such as memoryStore(), got null'],
  [{ mutex: {} }, TypeError, 'mutex must be a Mutex or RedisMutex, got an object of Object'],
  [
    { store: 'redis://:secret@host' },
    TypeError,
    'store must be a store such as memoryStore(), got an address (string)',
  ],
  [
    { mutex: 'redis://:secret@host' },
    TypeError,
    'mutex must be a Mutex or RedisMutex, got an address (string)',
  ],
  [{ keyPrefix: 'a:' }, TypeError, 'keyPrefix is an option of redis only, got it without redis'],
  [
    { store: memoryStore(), mutex: new Mutex(memoryStore()) },
    TypeError,
    'redis, store and mutex exclude each other, got store and mutex',
  ],
]

const none: readonly (readonly [unknown, string])[] = [
  [null, 'options must be an object, got null'],
  ['redis', "options must be an object, got 'redis' (string)"],
  ['redis://:secret@host', 'options must be an object, got an address (string)'],
  [[], 'options must be an object, got an object of Array'],
]

describe('Wrong options', () => {
  for (const [options, type, message] of wrong) {
    const what = JSON.stringify(options, (_, value) =>
      typeof value === 'number' ? String(value) : value,
    )

    it(`are refused by requestLock of Express: ${what}`, () => {
      const all = { keyFrom: () => 'a', ...options }
      expect(() => requestLock(all as never)).to.throw(type, message)
    })

    it(`are refused by the Fastify plugin: ${what}`, async () => {
      const error = await registering({ keyFrom: () => 'a', ...options })
      expect(error).to.be.instanceOf(type)
      expect((error as Error).message).to.include(message)
    })
  }

  it('are refused when they are no object', async () => {
    expect(() => requestLock(undefined as never)).to.throw(
      TypeError,
      'options must be an object, got undefined',
    )
    for (const [options, message] of none) {
      expect(() => requestLock(options as never)).to.throw(TypeError, message)
    }
  })

  it('are refused with a prefix that is none', async () => {
    const options = { redis: redis(), keyFrom: () => 'a', keyPrefix: 7 }
    expect(() => requestLock(options as never)).to.throw(TypeError, 'keyPrefix')
    expect((await registering(options))?.message).to.include('keyPrefix')
  })

  it('are refused without keyFrom, where there is no route to have one', () => {
    expect(() => requestLock({} as never)).to.throw(
      TypeError,
      'keyFrom is required: a function of the request, got undefined',
    )
  })

  it('are refused with a hook that comes too late, or that there is not', async () => {
    for (const hook of ['onSend', 'handler', 7]) {
      expect((await registering({ hook }))?.message).to.match(
        /^hook must be one of onRequest, preParsing, preValidation, preHandler, got /,
      )
    }
  })
})

describe('Options', () => {
  it('that are undefined are as if they were not there', async () => {
    const nothing = Object.fromEntries(
      wrong.flatMap(([options]) => Object.keys(options)).map((name) => [name, undefined]),
    )
    delete nothing.keyfrom
    const lock = requestLock({ ...nothing, keyFrom: () => 'a' })
    expect(lock.mutex.options).to.deep.equal({ expiry: Number.POSITIVE_INFINITY, maxWaiting: 50 })
    expect(await registering({ ...nothing, hook: undefined })).to.equal(undefined)
    await lock.close()
  })

  it('that are undefined on a mutex that is lent leave the defaults of requests as they are', async () => {
    const options = { expiry: undefined, maxWaiting: undefined, blockTime: 100 }
    const mutex = new Mutex(memoryStore(), options)
    const lock = requestLock({ mutex, keyFrom: () => 'a' })
    expect(lock.mutex.options).to.deep.equal({
      blockTime: 100,
      ...{ expiry: Number.POSITIVE_INFINITY, maxWaiting: 50 },
    })
    await lock.close()
    await mutex.close()
  })

  it('of Fastify’s own may come along with those of the plugin', async () => {
    expect(await registering({ keyFrom: () => 'a', prefix: '/api', logLevel: 'info' })).to.equal(
      undefined,
    )
  })

  it('without a store lock in this process, and say so once in production', async () => {
    const { NODE_ENV } = process.env
    const warnings: string[] = []
    const listen = (warning: Error) => {
      if (warning.name === 'RequestLockWarning') warnings.push(warning.message)
    }
    process.on('warning', listen)
    try {
      process.env.NODE_ENV = 'test'
      const first = requestLock({ keyFrom: () => 'a' })
      process.env.NODE_ENV = 'production'
      const second = requestLock({ keyFrom: () => 'a' })
      expect(await registering({ keyFrom: () => 'a' })).to.equal(undefined)
      await new Promise((resolve) => setImmediate(resolve))
      expect(warnings).to.have.length(1)
      expect(warnings[0]).to.include('locks inside this process only')
      // One store for all that have none.
      const held = await first.mutex.acquireLock('a')
      expect(await second.mutex.tryAcquire('a')).to.equal(null)
      await held.release()
      await first.close()
      await second.close()
    } finally {
      process.off('warning', listen)
      if (NODE_ENV === undefined) delete process.env.NODE_ENV
      else process.env.NODE_ENV = NODE_ENV
    }
  })
})

/** Why the plugin does not start with these options, if so. */
async function registering(options: Record<string, unknown>): Promise<Error | undefined> {
  const app = fastify()
  let failure: Error | undefined
  await app.register(fastifyLock, options as never).then(
    () => {},
    (error) => {
      failure = error
    },
  )
  await app.close().catch(() => {})
  return failure
}
