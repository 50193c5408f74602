import { type Act, actsOf, type Hold, holdsOf } from './acts.js'
import type { Event, Terms } from './history.js'
import { lengthWithin, type Span, touches, union, without } from './spans.js'

/** What a busy machine may add to a time, in ms, beside what is known to have stalled. */
const ALLOWANCE = 500
/** For how long a process may not run without noticing that, in ms: twice its beat. */
const GRAIN = 12
/** How soon after a stall a process must have noticed that a lock is lost, in ms. */
const NOTICE = 100
/** How long it may take after a fault until everybody is connected again, in ms. */
const RECOVERY = 1500
/** What one process that died or was cut off in the queue may cost the others, in ms. */
const CLAIM = 1500

/** What may not be. */
export interface Violation {
  readonly rule: 'overlap' | 'token' | 'write' | 'wait' | 'stall' | 'loss'
  readonly text: string
}

export interface Verdict {
  readonly violations: Violation[]
  /** Holds that overlapped after data had been lost, which no lock on such a deployment prevents. */
  readonly overlapsByLoss: number
  /** Holds that overlapped while the earlier holder was stopped beyond its lease. */
  readonly overlapsByStall: number
  /** The longest wait, but for stalls, and the longest time that a key was free and waited for. */
  readonly longestWait: number
  readonly longestStall: number
}

/**
 * Goes through a history, which must be in order.
 *
 * 1. No two holds of a key overlap, unless the earlier holder had been told, or could not be told
 *    because its process did not run.
 * 2. Fencing tokens rise from hold to hold, and a resource accepts no write out of order.
 * 3. Nobody waits beyond their time, and no key is free for long while somebody waits.
 * 4. Nobody loses a lock without a reason.
 */
export function check(events: readonly Event[], terms: Terms): Verdict {
  const history = new History(events, terms)
  const verdict = { violations: [] as Violation[], overlapsByLoss: 0, overlapsByStall: 0 }
  for (const holds of history.holds.values()) {
    exclusion(history, holds, verdict)
    tokens(history, holds, verdict.violations)
  }
  writes(history, verdict.violations)
  losses(history, verdict.violations)
  const longestWait = waits(history, verdict.violations)
  const longestStall = stalls(history, verdict.violations)
  return { ...verdict, longestWait, longestStall }
}

class History {
  readonly acts: readonly Act[]
  /** By key, in the order in which they began. */
  readonly holds: ReadonlyMap<string, readonly Hold[]>
  /** When each client's process did not run. */
  readonly stalls = new Map<string, Span[]>()
  /** When each client was dead, stopped or cut off. Who was killed does not come back. */
  readonly absences = new Map<string, Span[]>()
  /** When nobody could rely on the servers. */
  readonly disturbances: readonly Span[]
  /** When the whole machine was too busy. */
  readonly slow: Span[] = []
  /** When data may have been lost. */
  readonly losses: readonly Span[]
  readonly end: number

  constructor(
    readonly events: readonly Event[],
    readonly terms: Terms,
  ) {
    const disturbances: Span[] = []
    const losses: Span[] = []
    for (const event of events) {
      const { t: to, client } = event
      if (event.e === 'killed') {
        add(this.absences, client, { from: to, to: Number.POSITIVE_INFINITY })
        continue
      }
      if (event.e === 'stalling') add(this.stalls, client, { from: to, to: event.until })
      if (!('from' in event)) continue
      const span = { from: event.from, to }
      if (event.e === 'stalled' || event.e === 'stopped') add(this.stalls, client, span)
      if (event.e === 'stopped' || event.e === 'cut off') add(this.absences, client, span)
      if (event.e === 'disturbed') disturbances.push(span)
      if (event.e === 'slow') this.slow.push(span)
      if (event.e === 'forgot') losses.push(span)
    }
    for (const [client, spans] of this.stalls) this.stalls.set(client, union(spans))
    this.disturbances = disturbances
    this.losses = losses
    this.end = events.at(-1)?.t ?? 0
    this.acts = actsOf(events)
    this.holds = holdsOf(this.acts)
  }

  /** May one of them have been forgotten when the later one began? */
  forgotten(earlier: Hold, later: Hold): boolean {
    const span = { from: Math.min(this.#given(earlier), this.#given(later)), to: later.from }
    return this.losses.some((loss) => touches(loss, span))
  }

  /** Since when the store may have given it: one who was held up learns of it within its lease. */
  #given({ act, since, from }: Hold): number {
    const late = { from: Math.max(act.from, from - this.terms.lease), to: from }
    const holdUps = [this.stalls, this.absences].flatMap((spans) => spans.get(act.client) ?? [])
    return holdUps.some((span) => touches(span, late)) ? Math.min(since, late.from) : since
  }
}

function exclusion(
  history: History,
  holds: readonly Hold[],
  verdict: { violations: Violation[]; overlapsByLoss: number; overlapsByStall: number },
): void {
  let open: Hold[] = []
  for (const hold of holds) {
    open = open.filter((earlier) => earlier.to > hold.from)
    for (const earlier of open) {
      const { client, told, killed } = earlier.act
      const asleep = (history.stalls.get(client) ?? []).some(
        ({ from, to }) => from <= hold.from && hold.from <= to && earlier.to <= to + NOTICE,
      )
      const wasTold = told !== undefined || earlier.to === killed
      const blinked = earlier.to - hold.from <= GRAIN
      if (wasTold && (asleep || blinked)) verdict.overlapsByStall++
      else if (history.forgotten(earlier, hold)) verdict.overlapsByLoss++
      else {
        verdict.violations.push({
          rule: 'overlap',
          text: `${hold.key}: ${hold.act.op} began ${ms(hold.from)} while ${earlier.act.op} held from ${ms(earlier.from)} to ${ms(earlier.to)}`,
        })
      }
    }
    open.push(hold)
  }
}

function tokens(history: History, holds: readonly Hold[], violations: Violation[]): void {
  /** The holds so far with a higher token than all before them. */
  const peaks: Hold[] = []
  /** By client, the last token and when what it is one of was asked for. */
  const tenures = new Map<string, { token: bigint; asked: number }>()
  for (const hold of holds) {
    if (hold.token === null) continue
    const { client, from } = hold.act
    // What is passed on inside a process is what it got once, under the next token each time.
    const tenure = tenures.get(client)
    const asked = tenure && hold.token === tenure.token + 1n ? tenure.asked : from
    tenures.set(client, { token: hold.token, asked })
    const last = peaks.at(-1)
    if (!last || hold.token > (last.token ?? 0n)) {
      peaks.push(hold)
      continue
    }
    // After a loss of data two may hold at once, and see their grants in any order. But what was asked
    // for after another one's grant has a higher token, whatever was lost.
    const before = history.forgotten(last, hold)
      ? peaks.findLast((peak) => peak.from < asked)
      : last
    if (!before || hold.token > (before.token ?? 0n)) continue
    violations.push({
      rule: 'token',
      text: `${hold.key}: ${hold.act.op} got ${hold.token} at ${ms(hold.from)} after ${before.act.op} had got ${before.token} at ${ms(before.from)}`,
    })
  }
}

function writes(history: History, violations: Violation[]): void {
  const last = new Map<string, Hold>()
  const byName = new Map<string, Hold>()
  for (const holds of history.holds.values()) {
    for (const hold of holds) byName.set(`${hold.act.op} ${hold.key}`, hold)
  }
  for (const event of history.events) {
    if (event.e !== 'write' || !event.accepted) continue
    const hold = byName.get(`${event.op} ${event.key}`)
    if (!hold) continue
    const before = last.get(event.key)
    if (before && before !== hold && before.from > hold.from) {
      if (!history.forgotten(hold, before)) {
        violations.push({
          rule: 'write',
          text: `${event.key}: a write of ${event.op} was accepted at ${ms(event.t)}, after one of ${before.act.op}, which got the lock later`,
        })
      }
    }
    last.set(event.key, hold)
  }
}

function waits(history: History, violations: Violation[]): number {
  let longest = 0
  for (const act of history.acts) {
    const to = act.settled ?? act.killed ?? history.end
    const waited =
      to - act.from - lengthWithin(history.stalls.get(act.client) ?? [], { from: act.from, to })
    longest = Math.max(longest, act.patience === Number.POSITIVE_INFINITY ? 0 : waited)
    const isOpen = act.settled === undefined && act.killed === undefined
    if (waited <= act.patience + ALLOWANCE && !isOpen) continue
    violations.push({
      rule: 'wait',
      text: `${act.op} waited for ${act.keys} from ${ms(act.from)} for ${waited.toFixed()} ms, being willing to wait ${act.patience} ms${isOpen ? ', and was never told' : ''}`,
    })
  }
  return longest
}

function stalls(history: History, violations: Violation[]): number {
  const { terms } = history
  const waiting = new Map<string, Span[]>()
  const taken = new Map<string, Span[]>()
  /** Who was in the queue, perhaps, and could not take what was given to them. */
  const absent = new Map<string, Span[]>()
  for (const act of history.acts) {
    const wait = { from: act.from, to: act.settled ?? act.killed ?? history.end }
    const ofClient = (spans: ReadonlyMap<string, Span[]>): Span[] =>
      (spans.get(act.client) ?? []).filter((span) => touches(span, wait))
    const absences = ofClient(history.absences)
    for (const key of act.keys) {
      if (absences.length > 0) add(absent, key, { from: act.from, to: wait.to + act.patience })
      // Of several keys some may be held while others are waited for.
      if (act.keys.length > 1) add(taken, key, wait)
      else if (act.patience > terms.storeTimeout) {
        const busy = [...ofClient(history.stalls), ...recovering(absences)]
        for (const span of without([wait], busy)) add(waiting, key, span)
      }
    }
  }
  for (const [key, holds] of history.holds) {
    for (const { from, to } of holds) add(taken, key, { from, to: Math.min(to, history.end) })
  }
  let longest = 0
  const disturbances = recovering(history.disturbances)
  for (const [key, spans] of waiting) {
    for (const idle of without(spans, [...(taken.get(key) ?? []), ...disturbances])) {
      // What slows the suite down slows the servers down as well.
      const length = idle.to - idle.from - 2 * lengthWithin(history.slow, idle)
      longest = Math.max(longest, length)
      const dead = (absent.get(key) ?? []).filter((span) => touches(span, idle)).length
      const most = terms.delay + terms.lease + dead * CLAIM + ALLOWANCE
      if (length <= most) continue
      violations.push({
        rule: 'stall',
        text: `${key} was free and waited for from ${ms(idle.from)} for ${length.toFixed()} ms, at most ${most} are allowed`,
      })
    }
  }
  return longest
}

/** Until everybody is connected again. */
const recovering = (spans: readonly Span[]): Span[] =>
  spans.map(({ from, to }) => ({ from, to: to + RECOVERY }))

/** A lease is renewed in time, unless something keeps its holder from it. */
function losses(history: History, violations: Violation[]): void {
  const { lease } = history.terms
  for (const act of history.acts) {
    if (act.told !== 'ERR_MUTEX_LOST' || act.ended === undefined) continue
    const frame = { from: act.ended - lease - ALLOWANCE, to: act.ended }
    const { disturbances, absences, losses } = history
    const reasons = [...disturbances, ...(absences.get(act.client) ?? [])]
    if (reasons.some((span) => touches(span, frame))) continue
    if (losses.some((span) => touches(span, { ...frame, from: act.from }))) continue
    const stalled = [...(history.stalls.get(act.client) ?? []), ...history.slow]
    if (lengthWithin(stalled, frame) > lease / 8) continue
    violations.push({
      rule: 'loss',
      text: `${act.op} lost ${act.keys} at ${ms(act.ended)}, and nothing had happened`,
    })
  }
}

export function add<T>(map: Map<string, T[]>, key: string, value: T): void {
  const values = map.get(key)
  if (values) values.push(value)
  else map.set(key, [value])
}

const ms = (t: number): string => t.toFixed(3)
