// A process of the chaos suite: takes and gives back locks, writes to what they protect, and notes
// all that happens to it.
import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Lock, Mutex, MutexError } from '@redismutex/core'
import { clock } from './clock.js'
import { type Connection, clientsOf, storeOf } from './connection.js'
import { Diary, type Terms } from './history.js'
import { Random } from './random.js'

/** What such a process is to do. */
export interface Task {
  readonly client: string
  readonly seed: number
  readonly connection: Connection
  readonly terms: Terms
  readonly prefix: string
  readonly keys: readonly string[]
  readonly workers: number
  readonly diary: string
  readonly resource: number
}

/** How often it looks whether its event loop runs, and what it takes for a stall. */
const BEAT = 5
const STALL = 5

const task = JSON.parse(process.argv[2] ?? '') as Task
const { client, terms, keys } = task
const random = new Random(task.seed)
const diary = new Diary(task.diary, client)
const clients = clientsOf(task.connection)
const mutex = new Mutex(storeOf(task.connection, clients, task.prefix), terms)
let ending = false
let ops = 0

// Stalls

let beat = clock()
setInterval(() => {
  const now = clock()
  if (now - beat > BEAT + STALL) diary.note({ e: 'stalled', from: beat })
  beat = now
}, BEAT).unref()

function stall(ms: number): void {
  const until = clock() + ms
  diary.note({ e: 'stalling', until })
  while (clock() < until);
}

// The resource

const resource = connect(task.resource, '127.0.0.1')
const answers = new Map<number, (accepted: boolean) => void>()
resource.on('error', () => {})
const lines = createInterface({ input: resource }).on('error', () => {})
lines.on('line', (line) => {
  const { id, accepted } = JSON.parse(line) as { id: number; accepted: boolean }
  answers.get(id)?.(accepted)
  answers.delete(id)
})
let writes = 0

function write(op: string, key: string, token: string | null): Promise<boolean> {
  if (token === null) return Promise.resolve(true)
  const id = ++writes
  resource.write(`${JSON.stringify({ id, client, op, key, token })}\n`)
  return new Promise((resolve) => answers.set(id, resolve))
}

// The work

/** What a caller can do: the same lock in many ways. */
async function acquire(op: string): Promise<Lock | null> {
  // The last ones are wanted less often, so that nobody else comes to help there.
  const key = random.pick(keys, (one) => 1 / (1 + keys.indexOf(one) ** 2))
  const ask = (wanted: readonly string[], patience: number): void => {
    diary.note({ e: 'ask', op, keys: wanted, patience })
  }
  if (random.chance(0.08)) {
    ask([key], terms.storeTimeout)
    return mutex.tryAcquire(key)
  }
  if (random.chance(0.05)) {
    const others = keys.filter(() => random.chance(0.3))
    const several = [...new Set([key, ...others])]
    ask(several, terms.blockTime)
    return mutex.acquireLock(several)
  }
  if (random.chance(0.1)) {
    const patience = Math.round(random.between(2, terms.blockTime / 4))
    ask([key], patience)
    return mutex.acquireLock(key, { signal: AbortSignal.timeout(patience) })
  }
  const blockTime = random.chance(0.3)
    ? Math.round(random.between(2 * terms.delay, terms.blockTime))
    : terms.blockTime
  ask([key], blockTime)
  return mutex.acquireLock(key, { blockTime })
}

async function work(op: string, lock: Lock): Promise<void> {
  const tokens = [...lock.fencingTokens]
  // Some look whether they still hold it, some don't: the resource has to make that good.
  const isCareful = random.chance(0.8)
  const put = async () => {
    for (const [key, token] of tokens) {
      if (!(isCareful && lock.signal.aborted)) await write(op, key, token)
    }
  }
  await put()
  const kind = random.next()
  if (kind < 0.9) await sleep(random.between(0, 12))
  else if (kind < 0.97) await sleep(random.between(20, 100))
  else if (kind < 0.982) await sleep(random.between(0.6, 2.2) * terms.lease)
  else if (kind < 0.998) stall(random.between(5, 60))
  else stall(1.2 * terms.lease)
  await put()
}

function codeOf(error: unknown): string {
  return error instanceof MutexError ? error.code : (error as Error).name
}

async function visit(): Promise<void> {
  const op = `${client}:${++ops}`
  let lock: Lock | null
  try {
    lock = await acquire(op)
  } catch (error) {
    diary.note({ e: 'refused', op, code: codeOf(error) })
    return
  }
  if (!lock || lock.signal.aborted) {
    diary.note({ e: 'refused', op, code: lock ? 'got too late' : 'null' })
    return
  }
  const { signal } = lock
  diary.note({ e: 'got', op, tokens: [...lock.fencingTokens.values()] })
  signal.addEventListener('abort', () => diary.note({ e: 'lost', op, code: codeOf(signal.reason) }))
  await work(op, lock)
  // Who forgets to release has it until its expiry.
  if (random.chance(0.0005)) return
  // Who looks after a stall is told of a loss, before any timer has run.
  if (!lock.signal.aborted) diary.note({ e: 'giving', op })
  const code = await lock.release().then(() => '', codeOf)
  diary.note({ e: 'gave', op, code })
}

async function worker(): Promise<void> {
  while (!ending) {
    await sleep(random.between(0, 40))
    await visit()
  }
}

const workers = Array.from({ length: task.workers }, worker)

const orders: Record<string, () => Promise<void>> = {
  /** To see whether both have the same clock. */
  async clock() {
    process.send?.({ type: 'clock', t: clock() })
  },
  async end() {
    ending = true
    await Promise.all(workers)
    await mutex.close()
    for (const redis of clients) redis.disconnect()
    resource.destroy()
    process.disconnect()
  },
}
process.on('message', ({ type }: { type: string }) => void orders[type]?.())
