import { expect } from 'chai'
import { check, type Verdict } from './checker.js'
import type { Event, Mark, Note, Terms } from './history.js'
import { union, without } from './spans.js'

const terms: Terms = { blockTime: 3000, delay: 250, lease: 1000, storeTimeout: 500, expiry: 5000 }

/** A history in the making: what happens, to whom, and when. */
class Story {
  readonly events: Event[] = []

  at(t: number, client: string, event: Note | Mark): this {
    this.events.push({ t, client, ...event })
    return this
  }

  ask(t: number, op: string, patience = terms.blockTime, keys = ['k']): this {
    return this.at(t, clientOf(op), { e: 'ask', op, keys, patience })
  }

  got(t: number, op: string, ...tokens: number[]): this {
    return this.at(t, clientOf(op), { e: 'got', op, tokens: tokens.map(String) })
  }

  giving(t: number, op: string): this {
    return this.at(t, clientOf(op), { e: 'giving', op })
  }

  lost(t: number, op: string, code = 'ERR_MUTEX_LOST'): this {
    return this.at(t, clientOf(op), { e: 'lost', op, code })
  }

  /** A hold from beginning to end. */
  hold(op: string, asked: number, from: number, to: number, token: number): this {
    return this.ask(asked, op).got(from, op, token).giving(to, op)
  }

  wrote(t: number, op: string, token: number, accepted = true): this {
    return this.at(t, clientOf(op), { e: 'write', op, key: 'k', token: String(token), accepted })
  }

  check(): Verdict {
    return check(
      this.events.sort((a, b) => a.t - b.t),
      terms,
    )
  }

  get broken(): string[] {
    return this.check().violations.map(({ rule }) => rule)
  }
}

const clientOf = (op: string): string => op[0] as string

describe('the checker of the chaos suite', () => {
  let story: Story

  beforeEach(() => {
    story = new Story()
  })

  it('has nothing against holds one after the other', () => {
    story.hold('a1', 0, 10, 20, 1).hold('b1', 5, 21, 30, 2).hold('a2', 25, 31, 40, 3)
    story.wrote(11, 'a1', 1).wrote(22, 'b1', 2).wrote(23, 'a1', 1, false)
    expect(story.check()).to.deep.include({
      violations: [],
      overlapsByLoss: 0,
      overlapsByStall: 0,
      longestWait: 16,
    })
  })

  describe('two who hold at once', () => {
    it('is a violation', () => {
      story.hold('a1', 0, 10, 50, 1).hold('b1', 5, 40, 60, 2)
      expect(story.broken).to.deep.equal(['overlap'])
    })

    it('is one even if the earlier one never ends', () => {
      story.ask(0, 'a1').got(10, 'a1', 1).hold('b1', 5, 40, 60, 2)
      expect(story.broken).to.deep.equal(['overlap'])
    })

    it('is one for each that holds too long', () => {
      story.hold('a1', 0, 10, 100, 1).hold('b1', 5, 40, 50, 2).hold('c1', 5, 60, 70, 3)
      expect(story.broken).to.deep.equal(['overlap', 'overlap'])
    })

    it('is one of several keys too', () => {
      story.ask(0, 'a1', 3000, ['j', 'k']).got(10, 'a1', 1, 1).giving(50, 'a1')
      story.hold('b1', 5, 40, 60, 2)
      expect(story.broken).to.deep.equal(['overlap'])
    })

    it('is none of different keys', () => {
      story.hold('a1', 0, 10, 50, 1)
      story.ask(0, 'b1', 3000, ['j']).got(20, 'b1', 1).giving(30, 'b1')
      expect(story.broken).to.deep.equal([])
    })

    it('is none when the earlier one had been told that its lock is lost', () => {
      story.ask(0, 'a1').got(10, 'a1', 1).lost(39, 'a1', 'ERR_MUTEX_EXPIRED').giving(70, 'a1')
      story.hold('b1', 5, 40, 60, 2)
      expect(story.broken).to.deep.equal([])
    })

    it('is one when it was told a moment later', () => {
      story
        .ask(0, 'a1')
        .got(10, 'a1', 1)
        .lost(60, 'a1', 'ERR_MUTEX_EXPIRED')
        .hold('b1', 5, 40, 70, 2)
      expect(story.broken).to.deep.equal(['overlap'])
    })

    it('is none when the earlier one was killed before', () => {
      story.ask(0, 'a1').got(10, 'a1', 1).at(30, 'a', { e: 'killed' }).hold('b1', 5, 40, 60, 2)
      expect(story.broken).to.deep.equal([])
    })

    it('is counted apart while the earlier one was stopped, and was told as it went on', () => {
      story.ask(0, 'a1').got(10, 'a1', 1).lost(2001, 'a1')
      story.at(2000, 'a', { e: 'stopped', from: 20 }).hold('b1', 5, 1200, 1300, 2)
      expect(story.check()).to.deep.include({ violations: [], overlapsByStall: 1 })
    })

    it('is a violation when the one that was stopped goes on as if nothing had happened', () => {
      story.ask(0, 'a1').got(10, 'a1', 1).giving(2500, 'a1')
      story.at(2000, 'a', { e: 'stopped', from: 20 }).hold('b1', 5, 1200, 1300, 2)
      expect(story.broken).to.deep.equal(['overlap'])
    })

    it('is a violation when the one that was stopped releases and is not told', () => {
      story.ask(0, 'a1').got(10, 'a1', 1).giving(2001, 'a1')
      story.at(2000, 'a', { e: 'stopped', from: 20 }).hold('b1', 5, 1200, 1300, 2)
      expect(story.broken).to.deep.equal(['overlap'])
    })

    it('is a violation when somebody else was stopped', () => {
      story.ask(0, 'a1').got(10, 'a1', 1).lost(2001, 'a1')
      story.at(2000, 'c', { e: 'stopped', from: 20 }).hold('b1', 5, 1200, 1300, 2)
      expect(story.broken).to.deep.equal(['overlap', 'loss'])
    })

    it('is counted apart after data were lost, but not when they were lost before', () => {
      story.hold('a1', 0, 10, 50, 1).hold('b1', 5, 40, 60, 2)
      story.at(30, '', { e: 'forgot', from: 20, kind: 'data flushed' })
      expect(story.check()).to.deep.include({ violations: [], overlapsByLoss: 1 })
      const later = new Story().hold('a1', 0, 10, 50, 1).hold('b1', 5, 40, 60, 2)
      later.at(8, '', { e: 'forgot', from: 2, kind: 'data flushed' })
      expect(later.broken).to.deep.equal(['overlap'])
    })

    it('may be of one who was held up, and learns after a loss of data what was given before it', () => {
      const grant = (story: Story) =>
        story
          .ask(600, 'a1')
          .got(2000, 'a1', 1)
          .giving(2050, 'a1')
          .hold('b1', 1600, 1900, 2010, 2)
          .at(1800, '', { e: 'forgot', from: 1700, kind: 'failover' })
      for (const e of ['stopped', 'cut off'] as const) {
        const heldUp = grant(new Story()).at(1995, 'a', { e, from: 1100 })
        expect(heldUp.check()).to.deep.include({ violations: [], overlapsByLoss: 1 })
      }
      expect(grant(new Story()).broken).to.deep.equal(['overlap', 'token'])
      const before = grant(new Story()).at(900, 'a', { e: 'stopped', from: 100 })
      expect(before.broken).to.deep.equal(['overlap', 'token'])
    })
  })

  describe('fencing tokens', () => {
    it('have to rise', () => {
      story.hold('a1', 0, 10, 20, 7).hold('b1', 5, 30, 40, 6)
      expect(story.broken).to.deep.equal(['token'])
    })

    it('must not be the same', () => {
      story.hold('a1', 0, 10, 20, 7).hold('b1', 5, 30, 40, 7)
      expect(story.broken).to.deep.equal(['token'])
    })

    it('have to rise over all before, not over the last alone', () => {
      story.hold('a1', 0, 10, 20, 7).hold('b1', 5, 30, 40, 3).hold('a2', 5, 50, 60, 4)
      expect(story.broken).to.deep.equal(['token', 'token'])
    })

    it('have to rise over a loss of data for whoever asked after it', () => {
      story.at(30, '', { e: 'forgot', from: 20, kind: 'failover' })
      story.hold('a1', 0, 10, 20, 7).hold('b1', 25, 40, 50, 6)
      expect(story.broken).to.deep.equal(['token'])
    })

    it('stay low over a loss of data for what is passed on inside a process', () => {
      const lost = () => new Story().at(30, '', { e: 'forgot', from: 20, kind: 'failover' })
      const split = (token: number) =>
        lost().hold('a1', 0, 10, 35, 7).hold('b1', 15, 24, 26, 9).hold('a2', 28, 36, 40, token)
      expect(split(8).broken).to.deep.equal([])
      expect(split(6).broken).to.deep.equal(['token'])
    })

    it('may cross when two got the lock from different masters', () => {
      story.at(30, '', { e: 'forgot', from: 20, kind: 'failover' })
      story.hold('a1', 0, 24, 25, 7).hold('b1', 5, 27, 50, 6)
      expect(story.broken).to.deep.equal([])
    })
  })

  describe('writes', () => {
    it('of an earlier holder after those of a later one are a violation', () => {
      story.hold('a1', 0, 10, 20, 1).hold('b1', 5, 30, 40, 1).wrote(35, 'b1', 1).wrote(36, 'a1', 1)
      expect(story.broken).to.deep.equal(['token', 'write'])
    })

    it('are none when the resource refused them', () => {
      story.hold('a1', 0, 10, 20, 1).hold('b1', 5, 30, 40, 2)
      story.wrote(35, 'b1', 2).wrote(36, 'a1', 1, false)
      expect(story.broken).to.deep.equal([])
    })
  })

  describe('who waits', () => {
    it('has an answer within its time', () => {
      story.ask(0, 'a1').at(3600, 'a', { e: 'refused', op: 'a1', code: 'X' })
      expect(story.broken).to.include('wait')
    })

    it('has one at all', () => {
      story.ask(0, 'a1').hold('b1', 0, 10, 300, 1)
      expect(story.broken).to.deep.equal(['wait'])
    })

    it('has none when it was killed', () => {
      story.ask(0, 'a1').at(200, 'a', { e: 'killed' }).hold('b1', 0, 10, 9000, 1)
      expect(story.broken).to.deep.equal([])
    })

    it('may have it later for as long as it was stopped', () => {
      story.ask(0, 'a1').at(4600, 'a', { e: 'refused', op: 'a1', code: 'X' })
      story.at(2000, 'a', { e: 'stopped', from: 500 })
      story.hold('b1', 0, 10, 4600, 1)
      expect(story.broken).to.deep.equal([])
    })

    it('may have been killed later, while its event loop did not run', () => {
      story
        .ask(0, 'a1', 500)
        .at(300, 'a', { e: 'stalling', until: 1500 })
        .at(1400, 'a', { e: 'killed' })
      story.ask(0, 'b1', 100).at(1400, 'b', { e: 'killed' })
      expect(story.broken).to.deep.equal(['wait'])
    })
  })

  describe('who holds', () => {
    it('loses no lock without a reason', () => {
      story.ask(0, 'a1').got(10, 'a1', 1).lost(4000, 'a1')
      expect(story.broken).to.deep.equal(['loss'])
    })

    it('may lose it when it was stopped, cut off, or the servers were not there', () => {
      const reasons: [string, Mark][] = [
        ['a', { e: 'stopped', from: 2000 }],
        ['a', { e: 'cut off', from: 2000 }],
        ['', { e: 'disturbed', from: 2000, kind: 'server killed' }],
        ['', { e: 'forgot', from: 3900, kind: 'data flushed' }],
      ]
      for (const [client, reason] of reasons) {
        const lost = new Story().ask(0, 'a1').got(10, 'a1', 1).lost(4000, 'a1')
        expect(lost.at(3950, client, reason).broken, reason.e).to.deep.equal([])
      }
    })

    it('may be told of its expiry', () => {
      story.ask(0, 'a1').got(10, 'a1', 1).lost(4000, 'a1', 'ERR_MUTEX_EXPIRED')
      expect(story.broken).to.deep.equal([])
    })
  })

  describe('a key that is free', () => {
    const busyUntil = (t: number) => story.hold('b1', 0, 10, t, 1)

    it('must not be waited for longer than a delay and a lease', () => {
      busyUntil(100).ask(50, 'a1').got(1900, 'a1', 2).giving(1950, 'a1')
      expect(story.broken).to.deep.equal(['stall'])
      const sooner = new Story().hold('b1', 0, 10, 100, 1).hold('a1', 50, 1800, 1950, 2)
      expect(sooner.broken).to.deep.equal([])
    })

    it('must not be, whoever the waiters are', () => {
      busyUntil(100).ask(50, 'a1').at(1200, 'a', { e: 'refused', op: 'a1', code: 'X' })
      story.hold('c1', 1100, 2000, 2100, 2)
      expect(story.broken).to.deep.equal(['stall'])
    })

    it('may be while the servers are not there', () => {
      busyUntil(100).hold('a1', 50, 3000, 3050, 2)
      story.at(2000, '', { e: 'disturbed', from: 90, kind: 'server killed' })
      expect(story.broken).to.deep.equal([])
    })

    it('may be for longer if another process died in the queue', () => {
      busyUntil(100).hold('a1', 50, 3000, 3050, 2).ask(55, 'c1').at(60, 'c', { e: 'killed' })
      expect(story.broken).to.deep.equal([])
    })

    it('may not be if that process did not wait for it', () => {
      busyUntil(100).hold('a1', 50, 3000, 3050, 2).at(60, 'c', { e: 'killed' })
      expect(story.broken).to.deep.equal(['stall'])
    })

    it('may be for one who is cut off', () => {
      busyUntil(100).hold('a1', 50, 3000, 3050, 2).at(2800, 'a', { e: 'cut off', from: 60 })
      expect(story.broken).to.deep.equal([])
    })

    it('may be while the whole machine is too busy', () => {
      busyUntil(100).hold('a1', 50, 2600, 2650, 2).at(2000, '', { e: 'slow', from: 1500 })
      expect(story.broken).to.deep.equal([])
    })

    it('is not waited for by one who is stopped', () => {
      busyUntil(100).ask(50, 'a1').got(2500, 'a1', 2).giving(2550, 'a1')
      story.at(2400, 'a', { e: 'stopped', from: 60 })
      expect(story.broken).to.deep.equal([])
    })
  })
})

describe('spans', () => {
  it('are put together', () => {
    const spans = [
      { from: 5, to: 7 },
      { from: 1, to: 3 },
      { from: 2, to: 4 },
      { from: 9, to: 9 },
    ]
    expect(union(spans)).to.deep.equal([
      { from: 1, to: 4 },
      { from: 5, to: 7 },
    ])
  })

  it('are taken out of each other', () => {
    const others = [
      { from: 2, to: 3 },
      { from: 5, to: 12 },
    ]
    const spans = [
      { from: 0, to: 6 },
      { from: 10, to: 14 },
    ]
    expect(without(spans, others)).to.deep.equal([
      { from: 0, to: 2 },
      { from: 3, to: 5 },
      { from: 12, to: 14 },
    ])
  })
})
