/** One command that a process may send, perhaps again, perhaps late. Owners are numbered. */
export type Command =
  | { readonly verb: 'acquire'; readonly owner: number; readonly waited: number }
  | { readonly verb: 'try'; readonly owner: number }
  | {
      readonly verb: 'release'
      readonly owner: number
      /** How many hand-overs inside the process there were since the last grant, if Redis is told. */
      readonly used: number | undefined
      readonly heir: number | undefined
      readonly waited: number
    }
  | { readonly verb: 'renew'; readonly owner: number }
  | { readonly verb: 'cancel'; readonly owner: number }
  /** The lease ends, or somebody deletes the lock. */
  | { readonly verb: 'vanish' }

/** What an ask is to be answered with. */
export type Verdict = 'granted' | 'queued' | 'refused'

/** What is to be answered. */
export interface Expected {
  /** Of an acquire, a try, and of a release for the heir. */
  asked?: Verdict
  /** Of a release, a renewal and a cancel: was it held? */
  kept?: boolean
  /** How many are in the queue then. */
  others: number
  /** Who got the lock without having asked now, and hears of it by a push. */
  pushed: number | undefined
  /** Was the lock granted, by this answer or by a push? */
  isGrant: boolean
}

/** One mutex as the scripts are to keep it: who holds it, and who is in the queue, oldest first. */
export class Model {
  holder: number | undefined
  #queue: { owner: number; waited: number }[] = []

  get queue(): number[] {
    return this.#queue.map(({ owner }) => owner)
  }

  apply(command: Command): Expected {
    const before = this.holder
    const expected: Expected = { others: 0, pushed: undefined, isGrant: false }
    switch (command.verb) {
      case 'acquire':
        expected.asked = this.#ask(command.owner, command.waited)
        break
      case 'try':
        expected.asked = this.#ask(command.owner, undefined)
        break
      case 'release':
        expected.kept = this.#end(command.owner)
        if (command.heir !== undefined) expected.asked = this.#ask(command.heir, command.waited)
        else if (this.holder === undefined) this.#promote()
        break
      case 'renew':
        expected.kept = this.holder === command.owner
        break
      case 'cancel':
        expected.kept = this.#end(command.owner)
        if (expected.kept) this.#promote()
        break
      case 'vanish':
        this.holder = undefined
    }
    expected.others = this.#queue.length
    const isNew = this.holder !== undefined && this.holder !== before
    expected.isGrant = expected.asked === 'granted' || isNew
    if (isNew && expected.asked !== 'granted') expected.pushed = this.holder
    return expected
  }

  #ask(owner: number, waited: number | undefined): Verdict {
    const refusal = waited === undefined ? 'refused' : 'queued'
    if (this.holder === undefined && this.#queue.length === 0) {
      this.holder = owner
      return 'granted'
    }
    if (this.holder === owner) {
      if (waited !== undefined) this.#leave(owner)
      return 'granted'
    }
    if (waited !== undefined) this.#enter(owner, waited)
    if (this.holder !== undefined) return refusal
    this.#promote()
    return this.holder === owner ? 'granted' : refusal
  }

  /** Was it the holder? It is neither that nor in the queue any more. */
  #end(owner: number): boolean {
    this.#leave(owner)
    if (this.holder !== owner) return false
    this.holder = undefined
    return true
  }

  /**
   * Those who have waited longer come first; of two who have waited as long, who asked first. Who asks
   * again does not become younger.
   */
  #enter(owner: number, waited: number): void {
    const known = this.#queue.find((other) => other.owner === owner)
    if (known && known.waited >= waited) return
    this.#leave(owner)
    const younger = this.#queue.findIndex((other) => other.waited < waited)
    this.#queue.splice(younger < 0 ? this.#queue.length : younger, 0, { owner, waited })
  }

  #leave(owner: number): void {
    this.#queue = this.#queue.filter((other) => other.owner !== owner)
  }

  #promote(): void {
    this.holder = this.#queue.shift()?.owner
  }
}
