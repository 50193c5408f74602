import { type TracingChannelSubscribers, tracingChannel } from 'node:diagnostics_channel'
import {
  type AcquireEvent,
  type HoldEvent,
  Mutex,
  MutexExpiredError,
  MutexLockError,
  memoryStore,
} from '@redismutex/core'
import { expect } from 'chai'
import { until } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'

/** Subscribes until the end of the test. */
function subscribe(name: string, subscribers: TracingChannelSubscribers<object>): void {
  const channel = tracingChannel(name)
  channel.subscribe(subscribers)
  atEnd(() => channel.unsubscribe(subscribers))
}

/** Writes down what one channel tells. */
function record<E extends object>(name: string): { phases: string[]; events: E[] } {
  const told = { phases: [] as string[], events: [] as E[] }
  const phase = (what: string) => (event: object) => {
    told.phases.push(what)
    if (!told.events.includes(event as E)) told.events.push(event as E)
  }
  subscribe(name, {
    start: phase('start'),
    end: phase('end'),
    asyncStart: phase('asyncStart'),
    asyncEnd: phase('asyncEnd'),
    error: phase('error'),
  })
  return told
}

describe('the tracing channels', () => {
  const make = () => {
    const mutex = new Mutex(memoryStore())
    atEnd(() => mutex.close())
    return mutex
  }

  it('tell of an acquisition, and with it of the wait', async () => {
    const mutex = make()
    const first = await mutex.acquireLock('key')
    const { phases, events } = record<AcquireEvent>('redismutex.acquire')
    const second = mutex.acquireLock('key')
    expect(phases).to.deep.equal(['start', 'end'])
    await first.release()
    const lock = await second
    expect(phases).to.deep.equal(['start', 'end', 'asyncStart', 'asyncEnd'])
    expect(events).to.have.length(1)
    expect(events[0]).to.include({ mutex, blocking: true, result: lock })
    expect(events[0]?.keys).to.deep.equal(['key'])
    expect(events[0]?.result?.waited).to.be.a('number')
    await lock.release()
  })

  it('tell why there is no lock', async () => {
    const mutex = make()
    await using _held = await mutex.acquireLock('key')
    const { phases, events } = record<AcquireEvent>('redismutex.acquire')
    expect(await mutex.tryAcquire('key')).to.equal(null)
    expect(phases).to.deep.equal(['start', 'end', 'error', 'asyncStart', 'asyncEnd'])
    expect(events[0]?.error).to.be.instanceOf(MutexLockError)
    expect(events[0]).to.include({ blocking: false })
  })

  it('tell of a call that was wrong, which throws as ever', async () => {
    const mutex = make()
    const { phases, events } = record<AcquireEvent>('redismutex.acquire')
    await mutex.acquireLock(7 as never).then(
      () => expect.fail('it was right'),
      (error) => expect(error).to.be.instanceOf(TypeError),
    )
    await mutex.acquireLock('').then(
      () => expect.fail('it was right'),
      (error) => expect(error).to.equal(events[1]?.error),
    )
    expect(phases.slice(-3)).to.deep.equal(['start', 'error', 'end'])
  })

  it('tell of a hold from the grant to the release', async () => {
    const mutex = make()
    const { phases, events } = record<HoldEvent>('redismutex.hold')
    const lock = await mutex.acquireLock(['b', 'a'])
    expect(phases).to.deep.equal(['start', 'end'])
    expect(events[0]).to.include({ mutex, lock })
    expect(events[0]?.held).to.equal(undefined)
    await lock.release()
    await until(() => phases.length === 4)
    expect(phases).to.deep.equal(['start', 'end', 'asyncStart', 'asyncEnd'])
    expect(events).to.have.length(1)
    expect(events[0]?.keys).to.deep.equal(['b', 'a'])
    expect(events[0]?.held).to.be.a('number')
    expect(events[0]).to.not.have.property('error')
  })

  it('tell once that a lock was lost', async () => {
    const mutex = new Mutex(memoryStore(), { blockTime: 10, expiry: 30 })
    atEnd(() => mutex.close())
    const { phases, events } = record<HoldEvent>('redismutex.hold')
    const lock = await mutex.acquireLock('key')
    await until(() => phases.includes('asyncEnd'))
    expect(phases).to.deep.equal(['start', 'end', 'error', 'asyncStart', 'asyncEnd'])
    expect(events[0]?.error).to.be.instanceOf(MutexExpiredError)
    expect(lock.signal.reason).to.equal(events[0]?.error)
    await lock.release().catch(() => {})
    expect(phases).to.have.length(5)
  })

  it('never show the key where a logger or a metric would find it', async () => {
    const mutex = make()
    const acquired = record<AcquireEvent>('redismutex.acquire')
    const held = record<HoldEvent>('redismutex.hold')
    await mutex.runExclusive('secret', async () => {
      for (const event of [...acquired.events, ...held.events]) {
        expect(Object.keys(event)).to.not.include('keys')
        expect(JSON.stringify(event)).to.not.include('secret')
      }
    })
  })

  for (const [how, subscriber] of [
    [
      'throws',
      () => {
        throw new Error('a broken subscriber')
      },
    ],
    ['rejects', () => Promise.reject(new Error('a broken subscriber'))],
  ] as const) {
    it(`go on to the next when a subscriber ${how}, and nothing else changes`, async () => {
      const warnings: Error[] = []
      const listen = (warning: Error) => {
        if (warning.name === 'MutexTracingWarning') warnings.push(warning)
      }
      process.on('warning', listen)
      atEnd(() => process.off('warning', listen))
      const mutex = make()
      for (const name of ['redismutex.acquire', 'redismutex.hold']) {
        // One function for each, so that it is seen which have been told of.
        const broken = { asyncEnd: subscriber, error: subscriber, end: subscriber }
        subscribe(name, { ...broken, start: subscriber, asyncStart: subscriber })
      }
      const { phases } = record('redismutex.hold')
      await mutex.runExclusive('key', () => {})
      await using _held = await mutex.acquireLock('key')
      expect(await mutex.tryAcquire('key')).to.equal(null)
      await until(() => warnings.length > 0)
      expect(phases.filter((phase) => phase === 'asyncEnd')).to.have.length(1)
      // Once for a subscriber, however often it fails.
      expect(warnings.map(({ message }) => message)).to.deep.equal([
        'A subscriber of tracing:redismutex.acquire:start has thrown: a broken subscriber',
      ])
    })
  }

  it('cost nothing while nobody listens: an acquisition that began then is not told of', async () => {
    const mutex = make()
    const first = await mutex.acquireLock('key')
    const second = mutex.acquireLock('key')
    const acquired = record('redismutex.acquire')
    const held = record('redismutex.hold')
    await first.release()
    await (await second).release()
    expect([...acquired.phases, ...held.phases]).to.deep.equal([])
  })
})
