import { expect } from 'chai'
import { goals, judge } from '../src/goals.js'
import type { MetricName } from '../src/metrics.js'
import type { Cost, Reach } from '../src/reach/measure.js'
import { shown, shownWithSpread } from '../src/report/format.js'
import { type Facts, page } from '../src/report/page.js'
import { plot } from '../src/report/plot.js'
import { withFigures } from '../src/report/readme.js'
import { tableOf } from '../src/report/table.js'
import { bestPeer, Outcome } from '../src/results.js'
import { scenarios } from '../src/scenarios/index.js'

type Figures = Partial<Record<MetricName, number[]>>

/** What a scenario would have given: the figures of each contestant, round by round. */
function outcome(name: string, figures: Record<string, Figures>): Outcome {
  const scenario = scenarios.find((scenario) => scenario.name === name)
  if (!scenario) throw new Error(`no scenario ${name}`)
  const outcome = new Outcome(scenario)
  for (const { contestant, rounds } of outcome.entries) {
    for (const [metric, values] of Object.entries(figures[contestant.name] ?? {})) {
      for (const [round, value] of values.entries()) {
        rounds[round] = { ...rounds[round], [metric]: value }
      }
    }
  }
  return outcome
}

const own64 = (): Outcome =>
  outcome('64-own-keys', {
    redismutex: { locks: [80_000, 90_000, 70_000], clientCpu: [6], redisCpu: [7] },
    'two plain commands': { locks: [50_000, 40_000, 60_000], clientCpu: [12], redisCpu: [10] },
    'redis-semaphore': { locks: [40_000, 20_000, 30_000] },
    'redlock 5': { locks: [20_000] },
  })

const waiters64 = (): Outcome =>
  outcome('64-waiters', {
    redismutex: { locks: [400_000] },
    'redis-semaphore': { locks: [4_000] },
    'redlock 5': { locks: [3_000] },
    'async-mutex': { locks: [500_000] },
  })

const held5ms = (): Outcome =>
  outcome('4x4-waiters-5-ms', {
    redismutex: { p99: [90], fifo: [1.05], locks: [170], commands: [1.2], longest: [95, 96.2] },
    'redis-semaphore': { p99: [900], locks: [180], commands: [10], longest: [1234] },
  })

const facts: Facts = {
  command: 'pnpm bench',
  date: '2026-01-31',
  environment: ['some machine'],
  rounds: 3,
  duration: 1.5,
}

describe("the benchmark's report", () => {
  it('shows three digits that count, and the spread of several rounds', () => {
    const figures = [0.00123, 0.5, 12.34, 123.4, 123_456, 0, Number.NaN]
    expect(figures.map(shown)).to.deep.equal([
      ...['0.001', '0.50', '12.3', '123', '123,456', '0', '–'],
    ])
    expect(shownWithSpread(2, [1, 2, 3])).to.equal('2.00 (1.00–3.00)')
    expect(shownWithSpread(2, [2])).to.equal('2.00')
  })

  it('compares with the floor and with the best peer round by round, and takes the median', () => {
    const [head, ours, floor] = tableOf(own64())
    expect(head.slice(-2)).to.deep.equal(['× two plain commands', '× best peer'])
    expect(ours?.[1]).to.equal('80,000 (70,000–90,000)')
    expect(ours?.slice(-2)).to.deep.equal(['1.60', '2.33'])
    expect(floor?.slice(-2)).to.deep.equal(['1.00', '2.00'])
  })

  it('takes for the best peer only who does the same, and the lowest where less is better', () => {
    expect(bestPeer(waiters64(), 'locks')?.contestant.name).to.equal('redis-semaphore')
    const { contestant } = bestPeer(held5ms(), 'p99') ?? {}
    expect(contestant?.name).to.equal('redis-semaphore')
  })

  it('judges the goals of what was measured, and no others', () => {
    const judged = judge([own64(), waiters64(), held5ms()]).map(({ goal, value, met }) => {
      return [goal.scenario, goal.what, Number(value.toFixed(3)), met]
    })
    expect(judged).to.deep.equal([
      ['64-own-keys', 'locks/s, × floor', 1.6, true],
      ['64-own-keys', 'client CPU / lock, × floor', 0.5, true],
      ['64-own-keys', 'Redis CPU / lock, × floor', 0.7, false],
      ['64-waiters', 'locks/s, × best peer', 100, true],
      ['64-waiters', 'locks/s, × async-mutex', 0.8, false],
      ['4x4-waiters-5-ms', 'wait p99, × perfect FIFO', 1.05, true],
      ['4x4-waiters-5-ms', 'locks/s, × best peer', 0.944, false],
      ['4x4-waiters-5-ms', 'commands / lock', 1.2, true],
    ])
  })

  it('has a scenario for each goal', () => {
    const names = scenarios.map(({ name }) => name)
    expect(names).to.include.members(goals.map(({ scenario }) => scenario))
  })

  it('puts its figures where the README has a place for them, and leaves the rest', () => {
    const readme = 'before\n\n<!-- written by pnpm bench -->\n\nold\n\n<!-- end -->\n\nafter\n'
    const once = withFigures(readme, held5ms(), facts)
    expect(once)
      .to.match(/^before\n[\s\S]*\nafter\n$/)
      .and.not.include('old')
    expect(once).to.include('| redismutex | 1.20 | 90.0 | 95.6 (95.0–96.2) | 170 |')
    expect(withFigures(once, held5ms(), facts)).to.equal(once)
    expect(() => withFigures('nothing', held5ms(), facts)).to.throw('place for figures')
  })

  it('draws a panel for each scenario', async () => {
    const svg = await plot([own64(), held5ms()])
    expect(svg).to.match(/^<svg /)
    for (const text of ['64 at once, own keys', 'locks/s: more is better', 'redlock 5', '80,000']) {
      expect(svg).to.include(`>${text}<`)
    }
    expect(svg).to.include('wait p99, ms: less is better')
  })

  it('says on a page what was measured, on what, and how far it carries', () => {
    const cost: Cost = { locks: 50_000, cpu: 10, commands: 2, received: 200, sent: 50 }
    const costs = { free: cost, handedOver: { ...cost, cpu: 40 } }
    const reach: Reach = { single: costs, cluster: costs, fanout: { send: 2, receive: 4 } }
    const text = page([own64()], reach, facts)
    for (const part of [
      '`pnpm bench` has measured',
      'on 2026-01-31',
      '- some machine',
      '## 64 at once, own keys',
      '| 64-own-keys | locks/s, × floor | ≥ 1.2 | 1.60 | met |',
      '- **redlock 5**: acquire()',
      // A core does 1,000,000 µs in a second.
      '| Cluster, nobody else wants it | 10.0 | 100,000 | 20.0 | 5.00 | 2,000 |',
      // Each master: 1 % of (40 + 199 × 2) µs for its own, 99 % of 4 µs for the others'.
      'about\n  120,000 such hand-overs/s',
      'would allow 2,500,000',
    ]) {
      expect(text).to.include(part)
    }
  })

  it('says of goals that are missed, and of no others, what keeps from them', () => {
    const cost: Cost = { locks: 50_000, cpu: 10, commands: 2, received: 200, sent: 50 }
    const costs = { free: cost, handedOver: cost }
    const reach: Reach = { single: costs, cluster: costs, fanout: { send: 2, receive: 4 } }
    const missed = 'What keeps from those that are missed'
    expect(page([held5ms()], reach, facts)).to.match(/- `4x4-waiters-5-ms`: The holds are timers/)
    const met = outcome('64-own-keys', {
      redismutex: { locks: [80_000], clientCpu: [6], redisCpu: [5] },
      'two plain commands': { locks: [50_000], clientCpu: [12], redisCpu: [10] },
    })
    expect(page([met], reach, facts)).not.to.include(missed)
  })
})
