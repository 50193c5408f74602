/** Gives a held lock back. */
export type Release = () => unknown

/** One library in one process, on its own connections. */
export interface Locker {
  /** Waits for the lock, as long as it takes. */
  acquire(key: string): Promise<Release>
  close(): Promise<void>
}

/** One library, set up in one way. */
export interface Contestant {
  readonly name: string
  readonly kind: 'ours' | 'floor' | 'peer'
  /** What keeps its locks apart: those in memory do so within one process only. */
  readonly store: 'redis' | 'memory'
  /** How it is set up, and what was changed of its defaults. */
  readonly about: string
  /**
   * The names that Redis counts the commands under that the client sends. What their scripts call
   * is counted by Redis under other names.
   */
  readonly sends: readonly string[]
  open(port: number): Promise<Locker>
}

/** Nobody gives up waiting within a run, in ms. */
export const PATIENCE = 60_000
