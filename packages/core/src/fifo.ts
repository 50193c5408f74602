/** What a `Fifo` holds carries its own links, so that leaving from the middle costs nothing. */
export interface Link<T> {
  before: T | undefined
  after: T | undefined
}

/** A queue that anybody in it can leave at any time. */
export class Fifo<T extends Link<T>> {
  first: T | undefined
  #last: T | undefined
  size = 0

  push(item: T): void {
    item.before = this.#last
    if (this.#last) this.#last.after = item
    else this.first = item
    this.#last = item
    this.size++
  }

  shift(): T | undefined {
    const item = this.first
    if (item) this.remove(item)
    return item
  }

  /** `item` must be in this queue. */
  remove(item: T): void {
    if (item.before) item.before.after = item.after
    else this.first = item.after
    if (item.after) item.after.before = item.before
    else this.#last = item.before
    item.before = undefined
    item.after = undefined
    this.size--
  }

  *[Symbol.iterator](): Generator<T> {
    for (let item = this.first; item; ) {
      const { after }: Link<T> = item
      yield item
      item = after
    }
  }
}
