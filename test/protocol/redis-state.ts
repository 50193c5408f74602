import { randomBytes } from 'node:crypto'
import { expect } from 'chai'
import type { Redis } from 'ioredis'
import { fenceOf, type Names, namesOf } from '../../packages/core/src/stores/redis/names.js'
import { scripts, type Verb } from '../../packages/core/src/stores/redis/scripts.js'
import { freshKey } from '../support/redis.js'

export type Answer = number | string | readonly Answer[]

/** What an ask was answered with, whichever of its short forms the script chose. */
export interface Asked {
  readonly verdict: 'granted' | 'queued' | 'refused' | 'failed'
  /** Of a grant. */
  readonly token: number
  /** For how long the first of the others has waited, in µs; 0 if nobody has. */
  readonly others: number
  /** Of what was not granted: how long the holder has left, in ms. */
  readonly left: number
  readonly message: string
}

/** What a release was answered with. */
export interface Released {
  /** Was it held to the end? */
  readonly kept: boolean
  /** What became of the heir. */
  readonly heir: Asked | undefined
}

/** A process as Redis sees it: an instance with numbered owner values, and an inbox. */
export class Peer {
  readonly instance: string = randomBytes(16).toString('base64url')
  readonly messages: string[] = []
  readonly #inbox: Redis
  #n = 0

  private constructor(inbox: Redis) {
    this.#inbox = inbox
    inbox.on('message', (_channel, message) => this.messages.push(message))
  }

  static async start(inbox: Redis): Promise<Peer> {
    const peer = new Peer(inbox)
    await inbox.subscribe(`redismutex:inbox:${peer.instance}`)
    return peer
  }

  owner(): string {
    return `${this.instance}|${++this.#n}`
  }

  /** All messages that have been sent so far. */
  async heard(): Promise<string[]> {
    await this.#inbox.ping()
    return this.messages
  }
}

/** What an ask says beside its owner. */
export interface Terms {
  claim?: number
  blockTime?: number
  /** In ms. */
  waited?: number
  lease?: number
  keep?: number
}

/** One mutex in Redis, and its four scripts for one item each. */
export class Mutexlike {
  readonly names: Names

  constructor(
    readonly redis: Redis,
    lock: string = freshKey(),
  ) {
    this.names = namesOf(lock, '')
  }

  get lock(): string {
    return this.names.lock
  }
  get queue(): string {
    return this.names.queue
  }
  get fence(): string {
    return fenceOf(this.names, true)
  }

  async #one(verb: Verb, args: readonly string[]): Promise<Answer> {
    return run(this.redis, verb, [this.names], args)
  }

  async acquire(owner: string, terms: Terms = {}): Promise<Asked> {
    return asked(await this.#one('acquire', items.acquire(owner, terms)))
  }

  async try(owner: string, terms: Terms = {}): Promise<Asked> {
    return asked(await this.#one('acquire', items.try(owner, terms)))
  }

  async release(
    owner: string,
    token: number | undefined = undefined,
    heir?: string,
    terms: Terms = {},
  ): Promise<Released> {
    return released(await this.#one('release', items.release(owner, token, heir, terms)))
  }

  /** Gives 0: lost; else 1, and for how long the first of the others has waited, in µs. */
  async renew(owner: string, ms: number, token: number | undefined = undefined): Promise<Answer> {
    return this.#one('renew', items.renew(owner, ms, token))
  }

  /** Gives whether it was held, and has been passed on. */
  async cancel(owner: string, terms: Terms = {}): Promise<boolean> {
    return (await this.#one('cancel', items.cancel(owner, terms))) === 1
  }

  /** Who is in the queue, oldest first. */
  async queued(): Promise<string[]> {
    const entries = await this.redis.zrange(this.queue, '0', '-1')
    return entries.map((entry) => entry.split('|').slice(0, 2).join('|'))
  }
}

/** Runs a script over one mutex, or several, which share the fence of the first. */
export async function run(
  redis: Redis,
  verb: Verb,
  mutexes: readonly Names[],
  args: readonly string[],
  fence: string = fenceOf(mutexes[0]!, true),
): Promise<Answer> {
  const keys = [fence, ...mutexes.flatMap(({ lock, queue }) => [lock, queue])]
  return (await redis.eval(scripts[verb].text, keys.length, ...keys, ...args)) as Answer
}

export function asked(answer: Answer): Asked {
  const [first, second = 0] = Array.isArray(answer) ? answer : [answer]
  const none = { token: 0, others: 0, left: 0, message: '' }
  if (Number(first) > 1) {
    return { ...none, verdict: 'granted', token: Number(first), others: Number(second) }
  }
  if (first === -2) return { ...none, verdict: 'failed', message: String(second) }
  expect(first).to.be.oneOf([0, -1])
  return { ...none, verdict: first === 0 ? 'queued' : 'refused', left: Number(second) }
}

export function released(answer: Answer): Released {
  const [kept, got] = Array.isArray(answer) ? answer : [answer, undefined]
  expect(kept).to.be.oneOf([0, 1])
  return { kept: kept === 1, heir: got === undefined ? undefined : asked(got) }
}

const lease = ({ lease = 5000 }: Terms): string => String(lease)

const stay = ({ claim = 1000, blockTime = 10_000 }: Terms): string => `${claim}|${blockTime}`

const waiting = (terms: Terms): string =>
  `${stay(terms)}|${(terms.waited ?? 0) * 1000}|${terms.keep ?? 20_000}`

/** The arguments of one item of a call. */
export const items = {
  acquire: (owner: string, terms: Terms): string[] => [owner, lease(terms), waiting(terms)],
  try: (owner: string, terms: Terms): string[] => [owner, lease(terms), ''],
  release(
    owner: string,
    token: number | undefined,
    heir: string | undefined,
    terms: Terms,
  ): string[] {
    const next = heir === undefined ? '' : `${heir}|${lease(terms)}|${waiting(terms)}`
    return [owner, stay(terms), String(token ?? ''), next]
  },
  renew: (owner: string, ms: number, token: number | undefined = undefined): string[] => [
    owner,
    String(ms),
    String(token ?? ''),
  ],
  cancel: (owner: string, terms: Terms): string[] => [owner, stay(terms)],
}
