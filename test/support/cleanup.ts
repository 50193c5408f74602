import { constants } from 'node:os'

/** Closes what tests open: at the end of the test or of the run, and when the process ends early. */

type Cleanup = () => unknown

const ofTest = new Set<Cleanup>()
const ofRun = new Set<Cleanup>()
let current = ofRun

/**
 * Calls `cleanup` when the running test has ended. What is opened outside a test, in a `before`
 * hook, stays until the run has ended. Returns a function that takes the cleanup back.
 */
export function atEnd(cleanup: Cleanup): () => void {
  const scope = current
  scope.add(cleanup)
  return () => scope.delete(cleanup)
}

export function beginTest(): void {
  current = ofTest
}

export function endTest(): Promise<void> {
  current = ofRun
  return close(ofTest)
}

export function endRun(): Promise<void> {
  return close(ofRun)
}

/** The last one opened is closed first. Each gets its turn; the first error is thrown then. */
async function close(scope: Set<Cleanup>): Promise<void> {
  const errors: unknown[] = []
  for (const cleanup of [...scope].reverse()) {
    scope.delete(cleanup)
    try {
      await cleanup()
    } catch (error) {
      errors.push(error)
    }
  }
  if (errors.length > 0) throw errors[0]
}

const exits = new Set<() => void>()

/**
 * Calls `cleanup`, which must be synchronous, when this process ends, be it by a signal. Returns a
 * function that takes it back.
 */
export function atExit(cleanup: () => void): () => void {
  watchExit()
  exits.add(cleanup)
  return () => exits.delete(cleanup)
}

let watching = false

function watchExit(): void {
  if (watching) return
  watching = true
  process.once('exit', () => {
    for (const cleanup of [...exits].reverse()) cleanup()
  })
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    // Not once: a second signal must not end the process in the middle of its cleanup.
    process.on(signal, () => process.exit(128 + constants.signals[signal]))
  }
}
