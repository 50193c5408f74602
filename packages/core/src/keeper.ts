import { drift, now, timerUntil } from './clock.js'
import { Fifo, type Link } from './fifo.js'
import { asNobody } from './nobody.js'
import { endOf, lasts, type Store, type Tenure } from './stores/store.js'

/** What has a lease to be kept. */
export interface Leased extends Link<Leased> {
  /** The keeper's: does it keep the lease? */
  kept: boolean
  readonly held: Tenure | undefined
  /** The hold's or the lease's time is over. */
  end(at: number): void
  /** The store says that it is not ours any more. */
  lose(tenure: Tenure): void
}

/**
 * Keeps the leases of all that is held: judges them by the clock, renews them when half is gone,
 * and tells of those that are over.
 *
 * One timer for all, which does not keep the process alive. Its tick is only an occasion to look at
 * the clock: after a stall everybody else who looks comes to the same verdict.
 */
export class Keeper {
  readonly #held = new Fifo<Leased>()
  #timer: NodeJS.Timeout | undefined
  #next = Number.POSITIVE_INFINITY

  constructor(readonly store: Store) {}

  /** `leased.held` is new, or its terms are; `at` is now. */
  keep(leased: Leased, at: number): void {
    if (!leased.kept) this.#held.push(leased)
    leased.kept = true
    const { held } = leased
    if (!held) return
    plan(held)
    if (at >= held.renewAt) this.#renew(leased, held, at)
    this.#expect(due(held))
  }

  forget(leased: Leased): void {
    if (leased.kept) this.#held.remove(leased)
    leased.kept = false
  }

  /** Looks again no later than `at`. */
  #expect(at: number): void {
    if (at >= this.#next) return
    this.#next = at
    clearTimeout(this.#timer)
    this.#timer = asNobody(() => setTimeout(() => this.#look(), timerUntil(at)))
    this.#timer.unref()
  }

  #look(): void {
    const at = now()
    let next = Number.POSITIVE_INFINITY
    // What ends passes on in this loop, and whoever is next is to be kept like any other.
    this.#next = Number.POSITIVE_INFINITY
    for (const leased of [...this.#held]) {
      const { held } = leased
      if (!held || !leased.kept) continue
      if (at >= endOf(held)) {
        leased.end(now())
        continue
      }
      // Those that are due soon go along, so that a round over many takes few commands.
      if (at >= held.renewAt - held.lease / 8) this.#renew(leased, held, at)
      next = Math.min(next, due(held))
    }
    this.#expect(next)
  }

  #renew(leased: Leased, tenure: Tenure, at: number): void {
    if (tenure.renewing) return
    tenure.renewing = true
    const ms = Math.ceil(Math.min(tenure.lease, tenure.until - at))
    this.store.renew(tenure, ms).then(
      (ours) => {
        tenure.renewing = false
        if (leased.held !== tenure) return
        // First, since what is not ours goes to nobody here, whatever else is over.
        if (!ours) {
          leased.lose(tenure)
          return
        }
        // After a stall it may come when the lease was over, and others had the lock meanwhile.
        const heard = now()
        if (heard >= endOf(tenure)) {
          leased.end(heard)
          return
        }
        tenure.deadline = Math.max(tenure.deadline, at + ms - drift(ms))
        plan(tenure)
        this.#expect(due(tenure))
      },
      () => {
        // Unknown is not lost: tried again until the lease is over by our own clock.
        tenure.renewing = false
        if (leased.held !== tenure) return
        const left = tenure.deadline - now()
        tenure.renewAt = now() + Math.min(500, tenure.lease / 16, Math.max(5, left / 4))
        this.#expect(due(tenure))
      },
    )
  }
}

/** A lease that reaches to the end of the hold needs no renewal; any other does when half is gone. */
function plan(tenure: Tenure): void {
  tenure.renewAt = lasts(tenure) ? Number.POSITIVE_INFINITY : tenure.deadline - tenure.lease / 2
}

const due = (tenure: Tenure): number =>
  tenure.renewing ? endOf(tenure) : Math.min(tenure.renewAt, endOf(tenure))
