import { Keeper } from './keeper.js'
import { Line, type Surroundings } from './line.js'
import type { Member } from './member.js'
import { Pace } from './pace.js'
import type { Store } from './stores/store.js'

const cores = new WeakMap<Store, Core>()

/** What all mutexes on one store share in this process: the lines, and the keeper of the leases. */
export class Core implements Surroundings {
  readonly lines: Map<string, Line> = new Map()
  readonly keeper: Keeper
  readonly pace: Pace = new Pace()
  readonly #members = new Set<Member>()

  private constructor(readonly store: Store) {
    this.keeper = new Keeper(store)
  }

  static of(store: Store): Core {
    let core = cores.get(store)
    if (!core) {
      core = new Core(store)
      cores.set(store, core)
    }
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
    if (this.#members.size === 0) this.store.open()
    this.#members.add(member)
  }

  async leave(member: Member): Promise<void> {
    if (this.#members.delete(member) && this.#members.size === 0) await this.store.close()
  }
}
