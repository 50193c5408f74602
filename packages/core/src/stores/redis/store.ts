import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { drift, now } from '../../clock.js'
import type { MutexStoreError } from '../../errors.js'
import { assertOptions } from '../../options.js'
import type { Asker, Store, Tenure, Wish } from '../store.js'
import { Bid, claimOf } from './bid.js'
import { assertClient, type RedisClient } from './client.js'
import { Courier, type Reply } from './courier.js'
import { Inbox, type InboxMessages, type Tokens } from './inbox.js'
import { assertClusterPrefix, assertPrefix, lockName, namesOf } from './names.js'
import type { Verb } from './scripts.js'
import { Undo } from './undo.js'
import { Watch } from './watch.js'

/** How locks are named in Redis. */
export interface RedisStoreOptions {
  /**
   * Put in front of every key. `''` shares keys with other libraries that lock with a plain
   * `SET key value NX PX`: they and this one exclude each other.
   * @default 'mutex:'
   */
  keyPrefix?: string | undefined
}

/** The names of all options of a Redis store. */
export const redisStoreOptionNames: readonly string[] = ['keyPrefix']

const stores = new WeakMap<RedisClient, Map<string, Store>>()

/**
 * The store of the locks with one prefix in what an ioredis client speaks to: one Redis or Valkey,
 * Sentinel, or a Cluster. The same client and prefix give the same store.
 *
 * @throws TypeError for a wrong connection or prefix
 * @example
 * const mutex = new Mutex(redisStore(new Redis()))
 */
export function redisStore(redis: RedisClient, options: RedisStoreOptions = {}): Store {
  assertClient(redis)
  assertOptions(options, redisStoreOptionNames)
  const { keyPrefix = 'mutex:' } = options
  assertPrefix('keyPrefix', keyPrefix)
  if (redis.isCluster) assertClusterPrefix(redis.options?.keyPrefix ?? '')
  const ofClient = stores.get(redis) ?? new Map<string, Store>()
  stores.set(redis, ofClient)
  const store = ofClient.get(keyPrefix) ?? new RedisStore(redis, keyPrefix)
  ofClient.set(keyPrefix, store)
  return store
}

const NOBODY = ['', '', '', '', '']

class RedisStore implements Store, InboxMessages {
  readonly #client: RedisClient
  readonly #prefix: string
  readonly #courier: Courier
  readonly #inbox: Inbox
  readonly #watch: Watch
  readonly #instance = randomBytes(16).toString('base64url')
  #n = 0
  /** All that is asked for or held. */
  readonly #bids = new Map<number, Bid>()
  readonly #undo = new Undo({
    cancel: (bid) => this.#call('cancel', bid, [bid.owner, bid.tail], bid.wish.policy.storeTimeout),
    hopeless: () => !this.#open || this.#client.status === 'end',
  })
  #open = false

  constructor(client: RedisClient, prefix: string) {
    this.#client = client
    this.#prefix = prefix
    this.#courier = new Courier(client)
    this.#inbox = new Inbox(client, `redismutex:inbox:${this.#instance}`, this)
    this.#watch = Watch.of(client)
  }

  open(): void {
    this.#open = true
    this.#watch.open(this.#ended)
  }

  /** Waits for what is still to be taken back, but not for a Redis that does not answer. */
  async close(): Promise<void> {
    this.#open = false
    this.#watch.close(this.#ended)
    this.#inbox.close()
    const patience = new AbortController()
    const long = sleep(1000, undefined, { signal: patience.signal }).catch(() => {})
    await Promise.race([this.#quiet(), long])
    patience.abort()
  }

  /** Resolves when all that was sent has been answered, and all that was left taken back. */
  async #quiet(): Promise<void> {
    await this.#courier.idle()
    await this.#undo.idle()
  }

  readonly #ended = (): void => {
    this.#inbox.close()
  }

  get listeningSince(): number {
    return this.#inbox.liveSince
  }

  listen(): void {
    this.#inbox.want()
  }

  nameOf(key: string): string {
    return lockName(this.#prefix, key)
  }

  tenure(asker: Asker, wish: Wish): Tenure {
    const names = namesOf(wish.name, this.#client.options?.keyPrefix ?? '')
    return new Bid(asker, wish, ++this.#n, this.#instance, names)
  }

  // Asking

  acquire(tenure: Tenure): void {
    const bid = tenure as Bid
    this.#bids.set(bid.n, bid)
    this.#ask(bid)
  }

  #ask(bid: Bid): void {
    clearTimeout(bid.poll)
    if (bid.asking) {
      bid.again = true
      return
    }
    const { policy } = bid.wish
    const asked = this.#asks(bid)
    this.#courier.send('acquire', {
      names: bid.names,
      args: [...bid.ask, policy.blocking ? '1' : '0'],
      timeout: policy.storeTimeout,
      answered: (reply) => this.#answered(bid, reply, asked),
      failed: (error, settled) => this.#failed(bid, error, asked, settled),
    })
  }

  /** An ask is about to be sent. */
  #asks(bid: Bid): number {
    bid.asking = true
    bid.again = false
    bid.told = false
    return now()
  }

  #answered(bid: Bid, reply: Reply, asked: number): void {
    bid.asking = false
    const [verdict, ...rest] = reply.map(Number)
    // Granted by a push meanwhile: whatever this says is older, or says the same.
    if (bid.state === 'held') return
    if (bid.state === 'over') {
      if (verdict !== -1) this.#regret(bid)
      return
    }
    bid.answered = true
    const { lease, delay } = bid.wish.policy
    if (verdict === 1) {
      const [first = 0, last = 0, others = 0] = rest
      this.#grant(bid, { first, last }, others > 0, asked, asked + lease - drift(lease))
    } else if (verdict === 0) {
      this.#inbox.want()
      if (bid.again) {
        this.#ask(bid)
        return
      }
      const [left = -1] = rest
      // Asked again when the holder's time is over; a time to live of -1 is a lock without an end.
      bid.poll = setTimeout(() => this.#ask(bid), left < 0 ? delay : Math.min(delay, left + 1))
    } else {
      bid.state = 'over'
      this.#bids.delete(bid.n)
      bid.asker.refused(bid)
    }
  }

  #failed(bid: Bid, error: MutexStoreError, asked: number, settled: Promise<void>): void {
    bid.asking = false
    if (bid.state === 'held') {
      bid.late = settled
      return
    }
    const left = bid.state === 'over'
    this.#regret(bid, settled)
    if (!left) bid.asker.failed(bid, error, asked)
  }

  #grant(bid: Bid, tokens: Tokens, others: boolean, heard: number, deadline: number): void {
    // A grant that lay about while the event loop stalled is over, and is asked for again.
    if (now() >= deadline) {
      this.#ask(bid)
      return
    }
    clearTimeout(bid.poll)
    bid.state = 'held'
    bid.answered = true
    bid.token = tokens.first
    bid.lastToken = tokens.last
    bid.contended = others || bid.told
    bid.heard = heard
    bid.deadline = deadline
    bid.asker.granted(bid)
  }

  cancel(tenure: Tenure): void {
    const bid = tenure as Bid
    bid.state = 'over'
    clearTimeout(bid.poll)
    // Else when the ask on its way is answered: a cancel that overtook it would undo nothing.
    if (!bid.asking) this.#regret(bid)
  }

  // Giving back

  release(tenure: Tenure, next?: Tenure): Promise<boolean> {
    const bid = tenure as Bid
    const heir = next as Bid | undefined
    this.#forget(bid)
    if (heir) this.#bids.set(heir.n, heir)
    const asked = heir ? this.#asks(heir) : 0
    const { breaks } = this.#watch
    return new Promise((resolve, reject) => {
      this.#courier.send('release', {
        names: bid.names,
        args: [bid.owner, bid.tail, String(bid.token), ...(heir?.ask ?? NOBODY)],
        timeout: bid.wish.policy.storeTimeout,
        answered: ([kept, ...reply]) => {
          if (heir) this.#answered(heir, reply, asked)
          // Sent again after a break, it may find that others came and went: that says nothing.
          resolve(Number(kept) === 1 || this.#watch.breaks !== breaks)
        },
        failed: (error, settled) => {
          if (heir) this.#failed(heir, error, asked, settled)
          this.#regret(bid, settled)
          reject(error)
        },
      })
    })
  }

  renew(tenure: Tenure, ms: number): Promise<boolean> {
    const bid = tenure as Bid
    const asked = now()
    bid.told = false
    return this.#call('renew', bid, [bid.owner, String(ms), String(bid.token)], bid.patience).then(
      ([kept, last, others]) => {
        if (Number(kept) !== 1) {
          this.#forget(bid)
          return false
        }
        bid.lastToken = Number(last)
        bid.contended = Number(others) > 0 || bid.told
        bid.heard = asked
        return true
      },
    )
  }

  #call(verb: Verb, { names }: Bid, args: string[], timeout: number): Promise<Reply> {
    return new Promise((answered, failed) => {
      this.#courier.send(verb, { names, args, timeout, answered, failed })
    })
  }

  #forget(bid: Bid): void {
    bid.state = 'over'
    this.#bids.delete(bid.n)
    // An ask that was given up may still land, and get a lock that nobody waits for.
    const { late } = bid
    bid.late = undefined
    if (late !== undefined) this.#undo.begin(bid, late)
  }

  /** Nobody wants it any more, and what Redis makes of it is not known. */
  #regret(bid: Bid, settled?: Promise<void>): void {
    clearTimeout(bid.poll)
    this.#forget(bid)
    this.#undo.begin(bid, settled)
  }

  // What the inbox brings

  contended(n: number): void {
    const bid = this.#bids.get(n)
    if (!bid) return
    bid.told = true
    if (bid.state === 'held') bid.contended = true
  }

  granted(n: number, tokens: Tokens, others: boolean, age: number): void {
    const at = now()
    const bid = this.#bids.get(n)
    if (bid?.state === 'asking') {
      const claim = claimOf(bid.wish.policy)
      // It was granted `age` after it began to wait; how long the message took, nobody knows.
      const since = Math.min(at, bid.wish.since + age)
      this.#grant(bid, tokens, others, since, since + claim - drift(claim))
    } else if (!bid) {
      this.#undo.late(n)
    }
  }

  live(): void {
    for (const bid of this.#bids.values()) if (bid.state === 'asking') this.#ask(bid)
  }
}
