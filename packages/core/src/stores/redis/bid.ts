import { now } from '../../clock.js'
import type { Policy } from '../../options.js'
import { type Asker, Tenure, type Wish } from '../store.js'
import type { Names } from './names.js'
import { bothSettled, type Settled } from './trip.js'

/** How a grant that was pushed lasts until it is confirmed: a dead process costs the others no more. */
export const claimOf = ({ delay, lease }: Policy): number =>
  Math.ceil(Math.min(Math.max(1000, 1.5 * delay), lease))

/** One tenure in Redis. Until it is granted it asks, is told to wait, and asks again. */
export class Bid extends Tenure {
  /** In a `Bids`. */
  next: Bid | undefined
  /** `granted`: but replicas have yet to confirm it. */
  state: 'asking' | 'granted' | 'held' | 'over' = 'asking'
  /** Has Redis been asked, ever? */
  sent = false
  /** Is an ask on its way? How often had the connection broken when it was sent? */
  asking = false
  breaks = 0
  /** Is it to be followed by another at once? */
  again = false
  /** Is its release on its way? */
  returning = false
  /** Of asks that were not needed any more or may have come twice, and may still land. */
  late: Settled | undefined
  /** The next ask. */
  poll: NodeJS.Timeout | undefined
  /** Have others been heard of since the last command was sent? Its reply may be older. */
  told = false
  /** The fencing token it was granted with. */
  first = 0

  constructor(
    asker: Asker,
    wish: Wish,
    readonly n: number,
    instance: string,
    readonly names: Names,
  ) {
    super(asker, wish, `${instance}|${n}`)
  }

  /** An ask may still land when it is not needed any more. */
  owes(settled: Settled): void {
    this.late = this.late === undefined ? settled : bothSettled(this.late, settled)
  }

  /** Redis makes tokens of its time in microseconds: as long as fewer are used, its next is higher. */
  override lastToken(at: number): number {
    return this.first + Math.floor((at - this.since) * 990)
  }

  /** The token to tell Redis of, if it does not know it. */
  get used(): string {
    return this.token === this.first ? '' : String(this.token)
  }

  /** With the owner in front, the entry in Redis's queue. */
  get stay(): string {
    const { blockTime, policy } = this.wish
    return `${claimOf(policy)}|${blockTime === Number.POSITIVE_INFINITY ? 0 : Math.ceil(blockTime)}`
  }

  /** On what terms it waits; '' if it does not. */
  get terms(): string {
    const { since, blockTime, policy } = this.wish
    if (!policy.blocking) return ''
    const waited = Math.max(0, now() - since)
    // A living waiter asks again after `delay`; the queue need not outlast dead ones for long.
    const keep = Math.min(blockTime, Math.max(10_000, 4 * policy.delay)) + 1000
    return `${this.stay}|${Math.round(waited * 1000)}|${Math.ceil(keep)}`
  }
}
