import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Mutex } from '@redismutex/core'
import { answer } from '../support/command.js'
import { poll } from '../support/poll.js'
import { freshPrefix } from '../support/redis.js'
import { check, type Violation } from './checker.js'
import { clock } from './clock.js'
import { clientsOf, storeOf } from './connection.js'
import type { Deployment, DeploymentName } from './deployment.js'
import { startDeployment } from './deployments.js'
import { type Event, readDiary, type Terms, writeDiary } from './history.js'
import { Random } from './random.js'
import { Resource } from './resource.js'
import { World } from './world.js'

export interface ChaosOptions {
  readonly deployment: DeploymentName
  readonly seed: number
  /** For how long things go wrong, in ms. */
  readonly duration: number
  /** How many processes. */
  readonly clients?: number
  readonly workers?: number
  /** From how long to how long it is until the next thing goes wrong, in ms. */
  readonly pace?: readonly [number, number]
  /** For how long all is well at the end, before the clients leave, in ms. */
  readonly calm?: number
  readonly terms?: Terms
  /** Where the history is to stay, for a look at it. */
  readonly keep?: string | undefined
}

/** What a run has shown. */
export interface Outcome {
  readonly deployment: DeploymentName
  readonly seed: number
  readonly duration: number
  readonly asked: number
  readonly held: number
  readonly refused: Readonly<Record<string, number>>
  readonly lost: Readonly<Record<string, number>>
  readonly unreleased: Readonly<Record<string, number>>
  readonly writes: number
  readonly writesRefused: number
  readonly faults: Readonly<Record<string, number>>
  readonly overlapsByLoss: number
  readonly overlapsByStall: number
  readonly longestWait: number
  readonly longestStall: number
  readonly violations: readonly (Violation | { rule: 'end'; text: string })[]
}

const usual: Terms = {
  blockTime: 4000,
  delay: 250,
  lease: 1000,
  storeTimeout: 500,
  expiry: 7000,
}

const KEYS = 5

/** Lets clients work on a deployment while things go wrong, and checks what they have seen. */
export async function chaos(options: ChaosOptions): Promise<Outcome> {
  const {
    seed,
    duration,
    clients = 4,
    workers = 4,
    pace = [100, 1000],
    calm = 2500,
    terms = usual,
  } = options
  const prefix = freshPrefix()
  const keys = Array.from({ length: KEYS }, (_, n) => `key ${n}`)
  const random = new Random(seed)
  const directory = options.keep ?? mkdtempSync(join(tmpdir(), 'redismutex-'))
  const diary = join(directory, `${options.deployment}-${seed}.jsonl`)
  rmSync(diary, { force: true })
  const resource = new Resource()
  const deployment = await startDeployment(
    options.deployment,
    keys.map((key) => prefix + key),
  )
  try {
    const errand = { terms, prefix, keys, workers, diary, resource: await resource.start() }
    const world = new World(deployment, errand, random)
    await world.populate(clients)
    const until = clock() + duration
    while (clock() < until) {
      await sleep(random.between(...pace))
      world.strike()
      // Now and then nothing happens for so long that all has to be well again.
      if (random.chance(0.06)) await sleep(Math.min(2 * calm, until - clock()))
    }
    await world.calm()
    await sleep(calm)
    await world.leave()
    const problems = [...world.failures, ...(await remains(deployment, prefix, keys, terms))]
    const events = [...readDiary(diary), ...world.events, ...resource.events]
    events.sort((a, b) => a.t - b.t)
    if (options.keep) writeDiary(diary, events)
    return outcome(options, events, world.faults, problems)
  } finally {
    await deployment.stop()
    await resource.stop()
    if (!options.keep) rmSync(directory, { recursive: true })
  }
}

/** What is wrong at the end: every lock can be had, and then only fences are left, which expire. */
async function remains(
  deployment: Deployment,
  prefix: string,
  keys: readonly string[],
  terms: Terms,
): Promise<string[]> {
  const problems: string[] = []
  const direct = Object.fromEntries(deployment.nodes.map(({ port }) => [port, port]))
  const connection = deployment.connection(direct)
  const clients = clientsOf(connection)
  const mutex = new Mutex(storeOf(connection, clients, prefix), { blockTime: 10_000 })
  for (const key of keys) {
    await mutex
      .runExclusive(key, () => {})
      .catch((error: Error) => problems.push(`${key} can't be had at the end: ${error.message}`))
  }
  await mutex.close()
  for (const client of clients) client.disconnect()
  let left: string[] = []
  await poll(
    'nothing is left',
    async () => {
      left = []
      for (const { port } of await deployment.masters()) {
        for (const name of (await answer(port, 'KEYS', '*')) as string[]) {
          const isFence = /^redismutex:(quorum-)?fence/.test(name)
          const ends = Number(await answer(port, 'PTTL', name)) !== -1
          if (!isFence || !ends) left.push(`${name}${ends ? '' : ' (for ever)'}`)
        }
      }
      return left.length === 0
    },
    // An entry of a waiter that was killed is there for as long as it would have waited.
    terms.blockTime + 5000,
  ).catch(() => problems.push(`left behind: ${left}`))
  return problems
}

function outcome(
  { deployment, seed, duration, terms = usual }: ChaosOptions,
  events: readonly Event[],
  faults: ReadonlyMap<string, number>,
  problems: readonly string[],
): Outcome {
  const count: Record<Event['e'], number> = {
    ...{ ask: 0, got: 0, refused: 0, lost: 0, giving: 0, gave: 0, stalled: 0, stalling: 0 },
    ...{ killed: 0, stopped: 0, 'cut off': 0, disturbed: 0, slow: 0, forgot: 0, write: 0 },
  }
  const codes = {
    refused: new Map<string, number>(),
    lost: new Map<string, number>(),
    gave: new Map<string, number>(),
  }
  let writesRefused = 0
  for (const event of events) {
    count[event.e]++
    if (event.e === 'write' && !event.accepted) writesRefused++
    if (event.e === 'refused' || event.e === 'lost' || event.e === 'gave') {
      const ofKind = codes[event.e]
      if (event.code) ofKind.set(event.code, (ofKind.get(event.code) ?? 0) + 1)
    }
  }
  const { violations, ...verdict } = check(events, terms)
  return {
    deployment,
    seed,
    duration,
    asked: count.ask,
    held: count.got,
    refused: Object.fromEntries(codes.refused),
    lost: Object.fromEntries(codes.lost),
    unreleased: Object.fromEntries(codes.gave),
    writes: count.write,
    writesRefused,
    faults: Object.fromEntries([...faults].sort(([a], [b]) => a.localeCompare(b))),
    ...verdict,
    violations: [...violations, ...problems.map((text) => ({ rule: 'end' as const, text }))],
  }
}
