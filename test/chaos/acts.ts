import type { Event } from './history.js'

/** One acquisition, from when it was asked for to its end. */
export interface Act {
  readonly op: string
  readonly client: string
  readonly keys: readonly string[]
  readonly patience: number
  /** When it was asked for. */
  readonly from: number
  /** When the caller had its answer. */
  settled: number | undefined
  tokens: readonly (string | null)[] | undefined
  /** When it was told that the lock is lost, or was about to release it. */
  ended: number | undefined
  /** Why, if it was told. */
  told: string | undefined
  /** When its process was killed. */
  killed: number | undefined
}

/** One holder's time with one key. */
export interface Hold {
  readonly act: Act
  readonly key: string
  readonly token: bigint | null
  /** Since when the store may have given it: one of several keys, before the caller knew. */
  readonly since: number
  readonly from: number
  readonly to: number
}

export function actsOf(events: readonly Event[]): Act[] {
  const acts = new Map<string, Act>()
  const open = new Map<string, Set<Act>>()
  for (const event of events) {
    const { t, client } = event
    if (event.e === 'ask') {
      const { op, keys, patience } = event
      const act: Act = {
        ...{ op, client, keys, patience, from: t, settled: undefined, tokens: undefined },
        ...{ ended: undefined, told: undefined, killed: undefined },
      }
      acts.set(op, act)
      const others = open.get(client) ?? new Set()
      open.set(client, others.add(act))
    } else if (event.e === 'killed') {
      for (const act of open.get(client) ?? []) act.killed = t
      open.delete(client)
    } else if ('op' in event) {
      const act = acts.get(event.op)
      if (!act) continue
      if (event.e === 'got' || event.e === 'refused') act.settled = t
      if (event.e === 'got') act.tokens = event.tokens
      if (event.e === 'lost' && act.ended === undefined) act.told = event.code
      if (event.e === 'lost' || event.e === 'giving') act.ended ??= t
      if (event.e === 'refused' || act.ended !== undefined) open.get(client)?.delete(act)
    }
  }
  return [...acts.values()]
}

/** By key, in the order in which they began. */
export function holdsOf(acts: readonly Act[]): Map<string, Hold[]> {
  const holds = new Map<string, Hold[]>()
  for (const act of acts) {
    if (!act.tokens || act.settled === undefined) continue
    const to = act.ended ?? act.killed ?? Number.POSITIVE_INFINITY
    for (const [index, key] of act.keys.entries()) {
      const token = act.tokens[index] ?? null
      const ofKey = holds.get(key) ?? []
      holds.set(key, ofKey)
      ofKey.push({
        ...{ act, key, token: token === null ? null : BigInt(token) },
        ...{ since: act.keys.length > 1 ? act.from : act.settled, from: act.settled, to },
      })
    }
  }
  for (const ofKey of holds.values()) ofKey.sort((a, b) => a.from - b.from)
  return holds
}
