/** Numbers as they come in, as cheaply as can be: noting one must not be what is measured. */
export class Samples {
  #values = new Float64Array(1024)
  #size = 0

  add(value: number): void {
    if (this.#size === this.#values.length) {
      const larger = new Float64Array(this.#size * 2)
      larger.set(this.#values)
      this.#values = larger
    }
    this.#values[this.#size++] = value
  }

  get size(): number {
    return this.#size
  }

  take(): Float64Array {
    return this.#values.slice(0, this.#size)
  }
}

/** All samples of several processes, lowest first. */
export function sorted(parts: readonly Float64Array[]): Float64Array {
  const all = new Float64Array(parts.reduce((size, part) => size + part.length, 0))
  let size = 0
  for (const part of parts) {
    all.set(part, size)
    size += part.length
  }
  return all.sort()
}
