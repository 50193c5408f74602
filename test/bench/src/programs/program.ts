/** What runs in a process of its own: steps that the benchmark calls one after the other. */
export interface Program {
  readonly steps: Readonly<Record<string, (input: never) => unknown>>
  close(): Promise<void>
}

/** What a process is started with. */
export interface Task {
  /** The file in this folder that is run. */
  readonly program: string
  readonly contestant: string
  readonly port: number
}

/** A step that is to be done, and what came of it. */
export interface Call {
  readonly step: string
  readonly input: unknown
}

export type Answer = { readonly result: unknown } | { readonly failure: string }
