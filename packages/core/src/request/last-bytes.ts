/**
 * Holds back the end of an answer until a lock has been released, so that the client can't send its
 * next request before. Of what was streamed it holds only what comes with the end.
 */
export interface LastBytes {
  /**
   * An end is called.
   * @param over is there nothing to wait for any more?
   * @returns whether it sees to this call itself, so that Node's own `end` must not be called
   */
  takes(args: readonly unknown[], over: boolean): boolean
  /** Sends what is held back. */
  flush(): void
  /** Does so in `ms` at the latest. */
  flushIn(ms: number): void
  /** Does not, after all. */
  stay(): void
}

/** In bytes; `undefined` for what can't be sent, which Node is to refuse. */
export function sizeOf(chunk: unknown, encoding: unknown): number | undefined {
  if (chunk === undefined || chunk === null || typeof chunk === 'function') return 0
  if (typeof chunk === 'string') {
    return Buffer.byteLength(
      chunk,
      typeof encoding === 'string' ? (encoding as BufferEncoding) : 'utf8',
    )
  }
  return chunk instanceof Uint8Array ? chunk.byteLength : undefined
}

/** Replaces a method of one object; gives what takes that back. */
export function override<K extends string, T extends Record<K, unknown>>(
  object: T,
  name: K,
  method: T[K],
): () => void {
  const own = Object.getOwnPropertyDescriptor(object, name)
  object[name] = method
  return () => {
    if (own) Object.defineProperty(object, name, own)
    else Reflect.deleteProperty(object, name)
  }
}
