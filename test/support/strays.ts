import Mocha, { type Runner } from 'mocha'

/** Warnings that are bugs here: a listener or a timer that nobody thought through. */
const WARNINGS = new Set([
  'MaxListenersExceededWarning',
  'TimeoutNaNWarning',
  'TimeoutNegativeWarning',
  'TimeoutOverflowWarning',
])

/**
 * Makes the run fail for what goes wrong outside of what a test awaits, and names the test that was
 * running. Mocha sees to uncaught exceptions itself, but drops unhandled rejections.
 */
export function watchStrays(runner: Runner): void {
  const seen = new WeakSet<Promise<unknown>>()
  let ended = false
  runner.once(Mocha.Runner.constants.EVENT_RUN_END, () => {
    ended = true
  })

  const report = (what: string, reason: unknown) => {
    const error = reason instanceof Error ? reason : new Error(String(reason))
    if (ended) {
      console.error(`\n${what} after the last test:`, error)
      process.exitCode = 1
      if (runner.stats) runner.stats.failures++
      return
    }
    const running = runner.currentRunnable?.fullTitle() ?? 'no test'
    const failed = new Mocha.Test(`${what} while this ran: ${running}`)
    failed.parent = runner.suite
    ;(runner as unknown as Failing).fail(failed, error)
  }

  process.on('unhandledRejection', (reason, promise) => {
    // Mocha passes it on, so that it comes twice.
    if (seen.has(promise)) return
    seen.add(promise)
    report('Unhandled rejection', reason)
  })
  process.on('warning', (warning) => {
    if (WARNINGS.has(warning.name)) report(warning.name, warning)
  })
}

interface Failing {
  fail(test: Mocha.Test, error: unknown): void
}
