import { Keeper } from './keeper.js'
import { Line } from './line.js'
import type { Member } from './member.js'
import { Pace } from './pace.js'
import type { Store } from './stores/store.js'

/** Where a store has its core: on itself, so that another copy of this module sees it, too. */
const CORE = Symbol.for('redismutex.core')

/** What all mutexes on one store share in this process: the lines, and the keeper of the leases. */
export class Core {
  /** By name, each for as long as somebody is in it. */
  readonly lines: Map<string, Line> = new Map()
  readonly keeper: Keeper
  readonly pace: Pace = new Pace()
  /** Not to be kept in memory: many a mutex is never closed. */
  readonly #members = new WeakSet<Member>()
  #open = 0

  private constructor(readonly store: Store) {
    this.keeper = new Keeper(store)
  }

  /** @throws TypeError if another copy of this module has one: their lines would know nothing of each other */
  static of(store: Store): Core {
    const known: unknown = Object.getOwnPropertyDescriptor(store, CORE)?.value
    if (known instanceof Core) return known
    if (known) {
      throw new TypeError(
        'store must be used through one copy of @redismutex/core, got a second one: their locks on ' +
          'it would not exclude each other (npm ls @redismutex/core shows them)',
      )
    }
    const core = new Core(store)
    Object.defineProperty(store, CORE, { value: core })
    return core
  }

  /** The line of the lock with this name; it lives while somebody is in it. */
  line(name: string): Line {
    let line = this.lines.get(name)
    if (!line) {
      line = new Line(this, name)
      this.lines.set(name, line)
    }
    return line
  }

  join(member: Member): void {
    if (this.#members.has(member)) return
    this.#members.add(member)
    if (++this.#open === 1) this.store.open()
  }

  async leave(member: Member): Promise<void> {
    if (this.#members.delete(member) && --this.#open === 0) await this.store.close()
  }
}
