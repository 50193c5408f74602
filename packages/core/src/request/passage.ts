import type { Lock } from '../lock.js'
import { isThenable } from '../thenable.js'
import type { Exchange } from './exchange.js'
import { type Gate, GONE, type Verdict } from './gate.js'
import { Refusal } from './refusal.js'

/**
 * A request's way through a gate: its adapter says what becomes of it there. What that throws is for
 * the framework's error handling; nothing is thrown at the caller, nor rejected.
 */
export abstract class Passage<Req, OnBusy> {
  constructor(
    protected readonly gate: Gate<Req, OnBusy>,
    protected readonly request: Req,
    protected readonly exchange: Exchange,
    protected readonly next: (error?: Error) => void,
  ) {}

  /** It goes on with its lock. */
  protected abstract admitted(lock: Lock): void
  /** It goes on without a lock, since it names nothing to lock. */
  protected unnamed(): void {}
  /** It did not get its lock, and is not to go on by itself. */
  protected abstract refused(refusal: Refusal): Promise<void>
  /** Its client has left: nobody will be answered. */
  protected abstract gone(): void

  begin(): void {
    const decided = (verdict: Verdict) => this.#decided(verdict)
    const failed = (error: unknown) => this.#failed(error)
    try {
      const verdict = this.gate.admit(this.request, this.exchange)
      if (isThenable(verdict)) verdict.then(decided, failed)
      else decided(verdict)
    } catch (error) {
      failed(error)
    }
  }

  #decided(verdict: Verdict): void {
    try {
      if (verdict === GONE) {
        this.gone()
        return
      }
      if (verdict instanceof Refusal) {
        this.refused(verdict).catch((error: unknown) => this.#failed(error))
        return
      }
      if (verdict) this.admitted(verdict)
      else if (verdict === undefined) this.unnamed()
    } catch (error) {
      this.#failed(error)
      return
    }
    this.exchange.holds.run(() => this.#goOn())
  }

  /** `next(undefined)` would go on as if nothing had happened. */
  #failed(error: unknown): void {
    this.#goOn((error || new Error('onBusy has rejected with nothing')) as Error)
  }

  /** What the rest of the app throws past its framework is nothing of ours, nor a rejection. */
  #goOn(error?: Error): void {
    const { next } = this
    try {
      next(error)
    } catch (thrown) {
      process.nextTick(() => {
        throw thrown
      })
    }
  }
}
