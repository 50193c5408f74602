import { randomBytes } from 'node:crypto'
import type { Redis } from 'ioredis'
import { type Names, namesOf } from '../../packages/core/src/stores/redis/names.js'
import { run, type Verb } from '../../packages/core/src/stores/redis/scripts.js'
import { freshKey } from '../support/redis.js'

export type Reply = (number | string)[]

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
  readonly names: Names = namesOf(freshKey(), '')

  constructor(readonly redis: Redis) {}

  get lock(): string {
    return this.names[0]
  }
  get queue(): string {
    return this.names[1]
  }
  get fence(): string {
    return this.names[2]
  }

  async #one(verb: Verb, args: string[]): Promise<Reply> {
    const [reply] = (await run(this.redis, verb, this.names, args)) as Reply[]
    return reply!
  }

  acquire(owner: string, terms: Terms = {}): Promise<Reply> {
    return this.#one('acquire', [...ask(owner, terms), '1'])
  }

  try(owner: string, terms: Terms = {}): Promise<Reply> {
    return this.#one('acquire', [...ask(owner, terms), '0'])
  }

  release(owner: string, token: number | string, heir?: string, terms: Terms = {}): Promise<Reply> {
    const next = heir === undefined ? ['', '', '', '', ''] : ask(heir, terms)
    return this.#one('release', [owner, tail(terms), String(token), ...next])
  }

  renew(owner: string, ms: number, token: number | string = 0): Promise<Reply> {
    return this.#one('renew', [owner, String(ms), String(token)])
  }

  cancel(owner: string, terms: Terms = {}): Promise<Reply> {
    return this.#one('cancel', [owner, tail(terms)])
  }

  /** Who is in the queue, oldest first. */
  async queued(): Promise<string[]> {
    const entries = await this.redis.zrange(this.queue, '0', '-1')
    return entries.map((entry) => entry.split('|').slice(0, 2).join('|'))
  }
}

export function ask(owner: string, terms: Terms): string[] {
  const { waited = 0, lease = 5000, keep = 20_000 } = terms
  return [owner, tail(terms), String(waited * 1000), String(lease), String(keep)]
}

function tail({ claim = 1000, blockTime = 10_000 }: Terms): string {
  return `|${claim}|${blockTime}`
}
