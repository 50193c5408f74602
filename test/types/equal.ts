/** Whether two types are the same; `any` is only the same as itself. */
export type Equal<A, B> =
  (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false

/** Compiles only for `true`. */
export declare function holds<_T extends true>(): void
