import { writeFileSync } from 'node:fs'
import Mocha from 'mocha'

/** Where to write the summary too. */
const SUMMARY_FILE = 'REDISMUTEX_TEST_SUMMARY'

/**
 * Mocha's `spec` reporter, and a summary as the last line of all that the process prints. It is
 * printed when the process ends, so that what fails after the last test counts as well.
 */
export default class SummaryReporter extends Mocha.reporters.Spec {
  #failures: number | undefined

  constructor(runner: Mocha.Runner, options?: Mocha.MochaOptions) {
    super(runner, options)
    process.on('exit', this.#summarize)
  }

  override done(failures: number, end: (failures: number) => void): void {
    this.#failures = failures
    end(failures)
    // Mocha sets the exit code in a listener for 'exit': this one has to come after it.
    process.off('exit', this.#summarize)
    process.on('exit', this.#summarize)
  }

  readonly #summarize = (code: number): void => {
    const { passes, failures, pending } = this.stats
    // A process that ends early or fails after its last test has not passed.
    const failed = Math.max(failures, this.#failures ?? 1, code === 0 ? 0 : 1)
    if (failed > 0) process.exitCode ||= 1
    const summary = `${passes} passed, ${failed} failed${pending ? `, ${pending} skipped` : ''}`
    const file = process.env[SUMMARY_FILE]
    if (file) writeFileSync(file, `${summary}\n`)
    process.stdout.write(`${summary}\n`)
  }
}
