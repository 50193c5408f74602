import { openSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { clock } from './clock.js'

/** How long things take, in ms: those of the mutex, and what a busy machine may add. */
export interface Terms {
  readonly blockTime: number
  readonly delay: number
  readonly lease: number
  readonly storeTimeout: number
  readonly expiry: number
}

/** What a client notes, each with the time `t` of the shared clock. */
export type Note =
  /** It asks for these keys, and is willing to wait so long. */
  | { e: 'ask'; op: string; keys: readonly string[]; patience: number }
  /** It holds them, with these fencing tokens (none: null). */
  | { e: 'got'; op: string; tokens: readonly (string | null)[] }
  /** It holds nothing. `got too late`: its signal was aborted already. */
  | { e: 'refused'; op: string; code: string }
  /** Its signal has aborted. */
  | { e: 'lost'; op: string; code: string }
  /** It is about to release; from now on it does not count as holding. */
  | { e: 'giving'; op: string }
  /** The release is done, or has failed. */
  | { e: 'gave'; op: string; code: string }
  /** Its event loop did not run from then until now. */
  | { e: 'stalled'; from: number }
  /** Its event loop will not run until then: if it is killed meanwhile, it can't say so afterwards. */
  | { e: 'stalling'; until: number }

/** What the suite notes. */
export type Mark =
  /** A client was sent SIGKILL. */
  | { e: 'killed' }
  /** A client was stopped until now. */
  | { e: 'stopped'; from: number }
  /** A client was cut off from a server, or from all, until now. */
  | { e: 'cut off'; from: number }
  /** A server could not serve everybody, until now. */
  | { e: 'disturbed'; from: number; kind: string }
  /** The suite itself, with all its proxies, did not run until now. */
  | { e: 'slow'; from: number }
  /** Data that had been acknowledged may have been lost, from then until now. */
  | { e: 'forgot'; from: number; kind: string }
  /** The resource was asked to write. */
  | { e: 'write'; op: string; key: string; token: string; accepted: boolean }

export type Event = (Note | Mark) & { readonly t: number; readonly client: string }

/**
 * Where a client notes what happens to it: a line at once, in order, so that what a killed process
 * has lived to see is there.
 */
export class Diary {
  readonly #file: number
  readonly #client: string

  constructor(file: string, client: string) {
    this.#file = openSync(file, 'a')
    this.#client = client
  }

  note(note: Note): number {
    const t = clock()
    writeSync(this.#file, `${JSON.stringify({ t, client: this.#client, ...note })}\n`)
    return t
  }
}

/** All that was noted in a file. The last line may have been cut short by a kill. */
export function readDiary(file: string): Event[] {
  const events: Event[] = []
  for (const line of readFileSync(file, 'utf8').split('\n')) {
    try {
      if (line) events.push(JSON.parse(line) as Event)
    } catch {}
  }
  return events
}

/** What was noted, by whomever, for a look at it. */
export function writeDiary(file: string, events: readonly Event[]): void {
  writeFileSync(file, events.map((event) => `${JSON.stringify(event)}\n`).join(''))
}
