import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { drift, now } from '../../clock.js'
import type { MutexStoreError } from '../../errors.js'
import { assertOptions, type Policy } from '../../options.js'
import { type Asker, type Store, Tenure, type Wish } from '../store.js'
import { assertClient, type RedisClient } from './client.js'
import { Courier, type Reply } from './courier.js'
import { Inbox, type InboxMessages, type Tokens } from './inbox.js'
import { assertClusterPrefix, assertPrefix, lockName, type Names, namesOf } from './names.js'
import type { Verb } from './scripts.js'
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

/** How a grant that was pushed lasts until it is confirmed: a dead process costs the others no more. */
const claimOf = ({ delay, lease }: Policy): number =>
  Math.ceil(Math.min(Math.max(1000, 1.5 * delay), lease))

/** How long those who left are remembered, for grants that come late. */
const REMEMBERED = 10_000

/** One tenure in Redis. Until it is granted it asks, is told to wait, and asks again. */
class Bid extends Tenure {
  state: 'asking' | 'held' | 'over' = 'asking'
  /** Is an ask on its way? */
  asking = false
  /** The next ask. */
  poll: NodeJS.Timeout | undefined
  /** Have others been heard of since the last command was sent? Its reply may be older. */
  told = false

  constructor(
    asker: Asker,
    wish: Wish,
    readonly n: number,
    instance: string,
    readonly names: Names,
  ) {
    super(asker, wish, `${instance}|${n}`)
  }

  /** With the owner in front, the entry in Redis's queue. */
  get tail(): string {
    const { blockTime, policy } = this.wish
    return `|${claimOf(policy)}|${blockTime === Number.POSITIVE_INFINITY ? 0 : Math.ceil(blockTime)}`
  }

  /** An ask's arguments: owner, tail, waited, lease, keep. */
  get ask(): string[] {
    const { since, blockTime, policy } = this.wish
    const waited = Math.max(0, now() - since)
    // A living waiter asks again after `delay`; the queue need not outlast dead ones for long.
    const keep = Math.min(blockTime, Math.max(10_000, 4 * policy.delay)) + 1000
    return [
      this.owner,
      this.tail,
      String(Math.round(waited * 1000)),
      String(Math.ceil(policy.lease)),
      String(Math.ceil(keep)),
    ]
  }
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
  /** Those who left without a release, oldest first, and since when: a grant may still come. */
  readonly #left = new Map<number, { bid: Bid; at: number }>()
  readonly #undoing = new Set<Promise<void>>()
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
    await Promise.race([Promise.all(this.#undoing), long])
    patience.abort()
  }

  readonly #ended = (): void => {
    this.#inbox.close()
  }

  get listening(): boolean {
    return this.#inbox.live
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
    if (bid.asking) return
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
    bid.told = false
    return now()
  }

  #answered(bid: Bid, reply: Reply, asked: number): void {
    bid.asking = false
    const [verdict, ...rest] = reply.map(Number)
    // Granted by a push meanwhile: whatever this says is older, or says the same.
    if (bid.state === 'held') return
    if (bid.state === 'over') {
      if (verdict !== -1) this.#undo(bid)
      return
    }
    bid.answered = true
    const { lease, delay } = bid.wish.policy
    if (verdict === 1) {
      const [first = 0, last = 0, others = 0] = rest
      this.#grant(bid, { first, last }, others > 0, asked, asked + lease - drift(lease))
    } else if (verdict === 0) {
      this.#inbox.want()
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
    if (bid.state === 'held') return
    const left = bid.state === 'over'
    this.#undo(bid, settled)
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
    if (!bid.asking) this.#undo(bid)
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
          this.#undo(bid, settled)
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
  }

  /** Nobody wants it any more, and what Redis makes of it is not known. */
  #undo(bid: Bid, settled?: Promise<void>): void {
    clearTimeout(bid.poll)
    this.#forget(bid)
    const at = now()
    for (const [n, left] of this.#left) {
      if (at - left.at < REMEMBERED) break
      this.#left.delete(n)
    }
    this.#left.set(bid.n, { bid, at })
    const undoing = this.#cancel(bid, settled).finally(() => this.#undoing.delete(undoing))
    this.#undoing.add(undoing)
  }

  /**
   * Takes back what may have been asked, once nothing of it is on its way any more: until Redis says
   * that it is done, or time has ended all that could be left.
   */
  async #cancel(bid: Bid, settled?: Promise<void>): Promise<void> {
    await settled
    const { policy, blockTime } = bid.wish
    const until = now() + policy.lease + Math.min(blockTime, REMEMBERED)
    for (let pause = 50; now() < until; pause = Math.min(2 * pause, 1000)) {
      try {
        await this.#call('cancel', bid, [bid.owner, bid.tail], policy.storeTimeout)
        return
      } catch {
        if (!this.#open || this.#client.status === 'end') return
        await sleep(pause, undefined, { ref: false })
      }
    }
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
      const left = this.#left.get(n)
      if (left) this.#undo(left.bid)
    }
  }

  live(): void {
    for (const bid of this.#bids.values()) if (bid.state === 'asking') this.#ask(bid)
  }
}
