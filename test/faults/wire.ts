import type { Redis } from 'ioredis'

type Call = (...args: Parameters<Redis['evalsha']>) => Promise<unknown>

/** A client's script calls, each of which can be kept on its way there or back. */
export class Wire {
  readonly #kept: (() => void)[] = []
  #keep: 'requests' | 'replies' | undefined
  /** How many have had their reply. */
  answered = 0

  constructor(redis: Redis) {
    const send = redis.evalsha.bind(redis) as Call
    const call: Call = async (...args) => {
      if (this.#keep === 'requests') await this.#wait()
      const reply = await send(...args)
      if (this.#keep === 'replies') await this.#wait()
      this.answered++
      return reply
    }
    Object.assign(redis, { evalsha: call })
  }

  get kept(): number {
    return this.#kept.length
  }

  /** From now on nothing is sent, or nothing arrives. */
  keep(what: 'requests' | 'replies'): void {
    this.#keep = what
  }

  /** Lets pass what was kept, and what comes. */
  pass(): void {
    this.#keep = undefined
    for (const pass of this.#kept.splice(0)) pass()
  }

  /** Lets only that pass which was kept first. */
  passFirst(): void {
    this.#kept.shift()?.()
  }

  /** From now on all passes, but what was kept stays where it is until `pass`. */
  keepNoMore(): void {
    this.#keep = undefined
  }

  #wait(): Promise<void> {
    return new Promise((resolve) => this.#kept.push(resolve))
  }
}
