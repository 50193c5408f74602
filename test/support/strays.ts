import Mocha, { type Runner } from 'mocha'

/** Warnings that are bugs here: a listener or a timer that nobody thought through. */
const WARNINGS = new Set([
  'MaxListenersExceededWarning',
  'TimeoutNaNWarning',
  'TimeoutNegativeWarning',
  'TimeoutOverflowWarning',
])

/** What Mocha's runner has, and its types don't tell. */
interface OpenRunner {
  fail(test: Mocha.Test, error: unknown): void
  uncaught(error: unknown): void
}

/**
 * Makes the run fail for what goes wrong beside the tests, and names the one that was running. Mocha
 * sees to uncaught exceptions itself while tests run, but to no unhandled rejection.
 */
export function watchStrays(runner: Runner): void {
  const { fail, uncaught } = runner as unknown as OpenRunner
  const seen = new WeakSet<Promise<unknown>>()
  let ended = false

  const report = (what: string, reason: unknown) => {
    const error = reason instanceof Error ? reason : new Error(String(reason))
    if (ended) {
      console.error(`\n${what} after the last test:`, error)
      if (runner.stats) runner.stats.failures++
      return
    }
    const running = runner.currentRunnable?.fullTitle() ?? 'no test'
    const failed = new Mocha.Test(`${what} while this ran: ${running}`, () => {})
    failed.parent = runner.suite
    fail.call(runner, failed, error)
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
  runner.once(Mocha.Runner.constants.EVENT_RUN_END, () => {
    ended = true
    // Mocha's own listener throws from now on: the process would end without a summary.
    process.off('uncaughtException', uncaught)
    process.on('uncaughtException', (error) => report('Uncaught exception', error))
  })
}
