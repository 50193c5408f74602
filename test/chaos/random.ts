/** Numbers drawn from a seed: the same seed gives the same numbers. */
export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed | 0
  }

  /** From 0 up to 1. Mulberry32, https://gist.github.com/tommyettinger/46a874533244883189143505d203312c */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    let t = this.#state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }

  between(least: number, most: number): number {
    return least + this.next() * (most - least)
  }

  chance(of: number): boolean {
    return this.next() < of
  }

  /** One of them, the heavier the likelier. */
  pick<T>(things: readonly T[], weigh: (thing: T) => number = () => 1): T {
    const total = things.reduce((sum, thing) => sum + weigh(thing), 0)
    let rest = this.next() * total
    for (const thing of things) {
      rest -= weigh(thing)
      if (rest < 0) return thing
    }
    return things.at(-1) as T
  }
}
