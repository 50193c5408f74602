import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { drift, now } from '../../clock.js'
import { MutexStoreError } from '../../errors.js'
import type { Asker, Store, Tenure, Wish } from '../store.js'
import { Bid, claimOf } from './bid.js'
import { Bids } from './bids.js'
import type { RedisClient } from './client.js'
import { Courier } from './courier.js'
import { Ask, freight, type Outcomes, Return } from './errands.js'
import { Inbox, type InboxMessages } from './inbox.js'
import { lockName, type Names, namesOf } from './names.js'
import { Replicas, type WaitReplicas } from './replicas.js'
import type { Verb } from './scripts.js'
import { type Answer, type Settled, settled, untold } from './trip.js'
import { type Fate, Undo } from './undo.js'
import { Watch, type Watcher } from './watch.js'

/** How long one who is refused because Redis is out of reach waits for that, in ms. */
const PAUSE = 10

/** The locks with one prefix, as this process sees and wants them. */
export class RedisStore implements Store, InboxMessages, Outcomes, Watcher {
  readonly #client: RedisClient
  readonly #prefix: string
  readonly #courier: Courier<Verb, Names>
  readonly #inbox: Inbox
  readonly #watch: Watch
  readonly #replicas: Replicas | undefined
  readonly #instance = randomBytes(16).toString('base64url')
  #n = 0
  /** All that is asked for or held. */
  readonly #bids = new Bids()
  readonly #undo = new Undo({
    cancel: (bid, mayWait) => this.#cancelToTheEnd(bid, mayWait),
    outOfReach: () => this.#watch.lost,
    hangs: () => this.#courier.hangs,
    hopeless: () => !this.#open || this.#client.status === 'end',
  })
  #open = false
  /** Did the inbox come to life when nobody could be asked for? */
  #unasked = false

  constructor(client: RedisClient, prefix: string, replicas: WaitReplicas | undefined) {
    this.#client = client
    this.#prefix = prefix
    this.#watch = Watch.of(client)
    this.#courier = new Courier(client, freight, this.#watch)
    this.#inbox = new Inbox(client, `redismutex:inbox:${this.#instance}`, this)
    this.#replicas = replicas && new Replicas(client, replicas)
  }

  open(): void {
    this.#open = true
    this.#courier.open()
    this.#replicas?.open()
    this.#watch.open(this)
  }

  /** Waits for what is still to be taken back, but not for a Redis that does not answer. */
  async close(): Promise<void> {
    this.#open = false
    this.#watch.close(this)
    this.#inbox.close()
    this.#replicas?.close()
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

  broken(): void {
    this.#courier.broken()
  }

  restored(): void {
    this.#courier.restored()
    if (this.#unasked) this.live()
  }

  ended(): void {
    this.#inbox.close()
    this.#replicas?.disconnect()
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
    this.#bids.add(bid)
    this.#ask(bid)
  }

  #ask(bid: Bid): void {
    clearTimeout(bid.poll)
    if (bid.asking) {
      bid.again = true
      return
    }
    const patience = this.#watch.patience(bid.wish.policy.storeTimeout)
    if (patience > 0) {
      this.#asks(bid)
      this.#courier.send('acquire', new Ask(this, bid, patience))
    } else {
      // Not at once: who tries again without a pause would keep the client from ever reconnecting.
      bid.poll = setTimeout(() => this.#outOfReach(bid), PAUSE)
    }
  }

  /** It may be connected again by now. */
  #outOfReach(bid: Bid): void {
    if (this.#watch.patience(bid.wish.policy.storeTimeout) > 0) this.#ask(bid)
    else this.failed(bid, this.#courier.outOfReach(), now(), settled)
  }

  /** An ask is about to be sent. */
  #asks(bid: Bid): void {
    // If it is never sent, it does not come twice.
    bid.breaks = this.breaks
    bid.asking = true
    bid.again = false
    bid.told = false
  }

  sends(bid: Bid): void {
    bid.sent = true
    bid.breaks = this.breaks
  }

  /** An ask is over, or was never sent. */
  #asked(bid: Bid): void {
    // It may have been sent again, and come once more.
    if (bid.asking && bid.breaks !== this.breaks) bid.owes(untold)
    bid.asking = false
  }

  /** @param asked when the ask that is answered was sent */
  answered(bid: Bid, answer: Answer, asked: number): void {
    this.#asked(bid)
    const verdict = Number(typeof answer === 'object' ? answer[0] : answer)
    const detail = typeof answer === 'object' ? Number(answer[1]) : 0
    // Granted by a push meanwhile: whatever this says is older, or says the same.
    if (bid.state === 'held' || bid.state === 'granted') return
    if (bid.state === 'over') {
      if (verdict !== -1) this.#tooLate(bid, settled)
      else if (!bid.returning) this.#forget(bid)
      return
    }
    const { lease, delay } = bid.wish.policy
    if (verdict > 0) {
      this.#grant(bid, verdict, detail / 1000, asked, asked + lease - drift(lease))
    } else if (verdict === 0) {
      bid.trouble = undefined
      bid.asker.queued(bid)
      // Asked again when the holder's time is over; a time to live of -1 is a lock without an end.
      const pause = detail < 0 ? delay : Math.min(delay, detail + 1)
      this.#inbox.want(pause)
      if (bid.again) {
        this.#ask(bid)
        return
      }
      clearTimeout(bid.poll)
      bid.poll = setTimeout(() => this.#ask(bid), pause)
    } else {
      this.#forget(bid)
      bid.asker.refused(bid)
    }
  }

  failed(bid: Bid, error: MutexStoreError, asked: number, settled: Settled): void {
    this.#asked(bid)
    if (bid.state === 'held' || bid.state === 'granted') {
      bid.owes(settled)
      return
    }
    if (bid.state === 'over') {
      this.#tooLate(bid, settled)
      return
    }
    this.#regret(bid, settled)
    bid.asker.failed(bid, error, asked)
  }

  /** What an ask has left in Redis is taken back, but not before a release that would miss it. */
  #tooLate(bid: Bid, settled: Settled): void {
    if (bid.returning) bid.owes(settled)
    else this.#regret(bid, settled)
  }

  /**
   * @param others for how long, at most, the first of those in other processes had waited at the time
   *   of `heard`, in ms; 0 if nobody had
   */
  #grant(bid: Bid, token: number, others: number, heard: number, deadline: number): void {
    // A grant that lay about while the event loop stalled is over, and is asked for again.
    if (now() >= deadline) {
      bid.state = 'asking'
      // It may go on like this: whoever waits is to be timed.
      bid.asker.queued(bid)
      this.#ask(bid)
      return
    }
    clearTimeout(bid.poll)
    bid.first = token
    bid.token = token
    if (this.#replicas && bid.state === 'asking') {
      void this.#confirm(bid, this.#replicas, deadline)
      return
    }
    bid.state = 'held'
    this.#hear(bid, others, heard)
    bid.deadline = deadline
    bid.trouble = undefined
    bid.asker.granted(bid)
  }

  /** What a reply or a push says of those in other processes, as of `heard`. */
  #hear(bid: Bid, others: number, heard: number): void {
    bid.contended = others > 0 || bid.told
    bid.othersSince = bid.told ? Number.NEGATIVE_INFINITY : heard - others
    bid.heard = heard
  }

  /** A grant counts once replicas have it. Until then it is given back, and asked for again. */
  async #confirm(bid: Bid, replicas: Replicas, deadline: number): Promise<void> {
    const { lease, storeTimeout, blocking, delay } = bid.wish.policy
    bid.state = 'granted'
    bid.trouble ??= new MutexStoreError('replicas have not confirmed the lock yet')
    bid.asker.queued(bid)
    try {
      const args = [bid.owner, String(Math.ceil(lease)), '']
      const { answer, since } = await replicas.confirm(bid.names, args, storeTimeout)
      if (bid.state !== 'granted') return
      // Of a grant that was over by then, others may have had the lock since, with higher tokens.
      if (Number(answer) > 0 && now() < deadline) {
        const others = (Number(answer) - 1) / 1000
        this.#grant(bid, bid.first, others, since, since + lease - drift(lease))
      } else {
        bid.state = 'asking'
        this.#ask(bid)
      }
    } catch (error) {
      if (bid.state !== 'granted') return
      bid.trouble = error as MutexStoreError
      const asked = now()
      const { breaks } = this
      try {
        // Nothing of this grant may be left, since the next will have the same owner.
        await this.#call('cancel', bid, [bid.owner, bid.stay], storeTimeout)
      } catch (failure) {
        if (bid.state !== 'granted') return
        this.#regret(bid)
        bid.asker.failed(bid, failure as MutexStoreError, asked)
        return
      }
      if (bid.state !== 'granted') return
      if (breaks !== this.breaks) {
        // It was sent again, and may come once more: nothing can be held by this owner any more.
        this.#regret(bid)
        bid.asker.failed(bid, bid.trouble, Number.NEGATIVE_INFINITY)
        return
      }
      bid.state = blocking ? 'asking' : 'over'
      if (blocking) {
        bid.poll = setTimeout(() => this.#ask(bid), delay)
        return
      }
      this.#forget(bid)
      bid.asker.failed(bid, bid.trouble, Number.NEGATIVE_INFINITY)
    }
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
    bid.state = 'over'
    bid.returning = true
    this.#bids.delete(bid)
    if (heir) this.#bids.add(heir)
    if (heir) this.#asks(heir)
    return new Promise((resolve, reject) => {
      this.#courier.send('release', new Return(this, bid, heir, resolve, reject))
    })
  }

  /** How often the connection has broken. */
  get breaks(): number {
    return this.#watch.breaks
  }

  returned(bid: Bid): void {
    bid.returning = false
    this.#forget(bid)
  }

  /** Whether a release was in time is not known. */
  unreleased(bid: Bid, settled: Settled): void {
    bid.returning = false
    this.#regret(bid, settled)
  }

  renew(tenure: Tenure, ms: number): Promise<boolean> {
    const bid = tenure as Bid
    const asked = now()
    bid.told = false
    const args = [bid.owner, String(ms), bid.used]
    const answer = this.#replicas
      ? this.#replicas.confirm(bid.names, args, bid.patience).then(({ answer }) => answer)
      : this.#call('renew', bid, args, bid.patience)
    return answer.then((answer) => {
      if (Number(answer) === 0) {
        this.#forget(bid)
        return false
      }
      this.#hear(bid, (Number(answer) - 1) / 1000, asked)
      return true
    })
  }

  #call(verb: Verb, { names }: Bid, items: string[], timeout: number): Promise<Answer> {
    return new Promise((answered, failed) => {
      const pack = (args: string[]) => void args.push(...items)
      this.#courier.send(verb, { names, timeout, pack, answered, failed })
    })
  }

  /** Gives its fate only when the client is done with it: nothing is to pile up before a Redis that hangs. */
  #cancelToTheEnd({ names, owner, stay, wish }: Bid, mayWait: boolean): Promise<Fate> {
    return new Promise((resolve) => {
      const { storeTimeout: timeout } = wish.policy
      const pack = (args: string[]) => void args.push(owner, stay)
      const answered = () => resolve('answered')
      const failed = (_error: MutexStoreError, settled: Settled) => {
        void settled.then((isOver) => resolve(isOver ? 'failed' : 'given up'))
      }
      this.#courier.send('cancel', { names, timeout, mayWait, pack, answered, failed })
    })
  }

  #forget(bid: Bid): void {
    bid.state = 'over'
    this.#bids.delete(bid)
    // An ask that was given up, or has come twice, may still land, and get a lock that nobody wants.
    const { late } = bid
    bid.late = undefined
    if (late !== undefined) this.#undo.begin(bid, late)
  }

  /** Nobody wants it any more, and what Redis makes of it is not known. */
  #regret(bid: Bid, asked: Settled = settled): void {
    clearTimeout(bid.poll)
    if (bid.sent) bid.owes(asked)
    this.#forget(bid)
  }

  // What the inbox brings

  contended(n: number): void {
    const bid = this.#bids.get(n)
    if (!bid) {
      // Others wait for what nobody here holds: an ask that was given up has landed late.
      this.#undo.late(n)
      return
    }
    bid.told = true
    if (bid.state !== 'held') return
    bid.contended = true
    bid.othersSince = Number.NEGATIVE_INFINITY
  }

  granted(n: number, token: number, others: number, age: number): void {
    const at = now()
    const bid = this.#bids.get(n)
    // What was granted before is over: it was given back, or asked for again since.
    if (bid?.state === 'asking' && token > bid.first) {
      const claim = claimOf(bid.wish.policy)
      // It was granted `age` after it began to wait; how long the message took, nobody knows.
      const since = Math.min(at, bid.wish.since + age)
      this.#grant(bid, token, others, since, since + claim - drift(claim))
    } else if (!bid) {
      this.#undo.late(n)
    } else if (bid.state === 'over') {
      this.#regret(bid)
    }
  }

  live(): void {
    // The inbox may be connected again before the connection to ask on.
    this.#unasked = this.#watch.lost
    if (this.#unasked) return
    for (const bid of this.#bids) if (bid.state === 'asking') this.#ask(bid)
  }
}
