import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { RedisClient } from '../redis/client.js'
import { lockName } from '../redis/names.js'
import type { Asker, Store, Tenure, Wish } from '../store.js'
import { Candidate, type Electorate, SOONEST } from './candidate.js'
import { Courtesy } from './courtesy.js'
import { Master } from './master.js'

/** The locks with one prefix, as this process wants and holds them of a majority of masters. */
export class QuorumStore implements Store, Electorate {
  /** Nobody tells this process that others wait: it learns of them when it asks or renews. */
  readonly listeningSince: number = Number.POSITIVE_INFINITY
  readonly masters: readonly Master[]
  readonly #clients: ReadonlySet<RedisClient>
  readonly #prefix: string
  readonly #instance = randomBytes(16).toString('base64url')
  readonly #courtesy = new Courtesy()
  #n = 0

  constructor(clients: readonly RedisClient[], prefix: string) {
    this.#clients = new Set(clients)
    this.#prefix = prefix
    this.masters = clients.map((client) => new Master(client))
  }

  isOf(clients: readonly RedisClient[], prefix: string): boolean {
    return (
      prefix === this.#prefix &&
      clients.length === this.#clients.size &&
      clients.every((client) => this.#clients.has(client))
    )
  }

  open(): void {
    for (const master of this.masters) master.open()
  }

  /** Waits for what is still to be taken back, but not for masters that do not answer. */
  async close(): Promise<void> {
    for (const master of this.masters) master.close()
    const patience = new AbortController()
    const long = sleep(1000, undefined, { signal: patience.signal }).catch(() => {})
    await Promise.race([Promise.all(this.masters.map((master) => master.idle())), long])
    patience.abort()
  }

  listen(): void {}

  owner(): string {
    return `${this.#instance}|${++this.#n}`
  }

  nameOf(key: string): string {
    return lockName(this.#prefix, key)
  }

  tenure(asker: Asker, wish: Wish): Tenure {
    return new Candidate(asker, wish, this)
  }

  acquire(tenure: Tenure): void {
    const { name, policy } = tenure.wish
    const candidate = tenure as Candidate
    const left = policy.blocking ? this.#courtesy.left(name) : 0
    if (left > 0) candidate.askIn(left)
    else candidate.ask()
  }

  cancel(tenure: Tenure): void {
    ;(tenure as Candidate).leave()
  }

  release(tenure: Tenure, next?: Tenure): Promise<boolean> {
    const { name } = tenure.wish
    const heir = next as Candidate | undefined
    const letOthersGo = (ms: number): void => {
      this.#courtesy.show(name, ms)
      heir?.askIn(ms)
    }
    const released = (tenure as Candidate).release(heir !== undefined, letOthersGo)
    if (tenure.contended) letOthersGo(SOONEST)
    else heir?.ask()
    return released
  }

  renew(tenure: Tenure, ms: number): Promise<boolean> {
    return (tenure as Candidate).renew(ms)
  }
}
