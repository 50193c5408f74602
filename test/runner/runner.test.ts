import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect } from 'chai'
import { atEnd } from '../support/cleanup.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const mocha = createRequire(import.meta.url).resolve('mocha/bin/mocha.js')

interface Run {
  readonly code: number
  readonly output: string
  readonly lastLine: string | undefined
  /** What was written to the summary file. */
  readonly summary: string
}

function run(sample: string, env: NodeJS.ProcessEnv = {}): Promise<Run> {
  const directory = mkdtempSync(join(tmpdir(), 'redismutex-'))
  atEnd(() => rmSync(directory, { recursive: true }))
  const file = join(directory, 'summary')
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [mocha, `test/runner/samples/${sample}.ts`],
      { cwd: root, env: { ...process.env, ...env, REDISMUTEX_TEST_SUMMARY: file } },
      (_error, stdout, stderr) => {
        resolve({
          code: child.exitCode ?? -1,
          output: stdout + stderr,
          lastLine: stdout.trimEnd().split('\n').at(-1),
          summary: readFileSync(file, 'utf8').trim(),
        })
      },
    )
  })
}

describe('a test run', () => {
  it('ends with its summary, and 0 when all is well', async () => {
    const { code, lastLine, summary } = await run('good')
    expect(lastLine).to.equal('1 passed, 0 failed, 1 skipped')
    expect(summary).to.equal(lastLine)
    expect(code).to.equal(0)
  })

  it('fails for what goes wrong beside a test, and names the test that ran', async () => {
    const { code, output, lastLine, summary } = await run('strays')
    expect(output).to.match(/Unhandled rejection while this ran: strays leaves a rejection/)
    expect(output).to.match(/Error: nobody handles this/)
    expect(output).to.match(/MaxListenersExceededWarning while this ran: strays leaks listeners/)
    expect(output).to.match(/TimeoutOverflowWarning while this ran: strays waits longer/)
    expect(output).to.match(/strays\s+fails in a callback:\s+Uncaught Error: nobody catches this/)
    expect(output).to.match(/Unhandled rejection after the last test: Error: nobody is left/)
    expect(output).to.match(/Uncaught exception after the last test: Error: nobody is left/)
    expect(lastLine).to.equal('5 passed, 6 failed')
    expect(summary).to.equal(lastLine)
    expect(code).not.to.equal(0)
  })

  it('shows what keeps the process alive, and fails', async () => {
    const { code, output, lastLine } = await run('leak', { REDISMUTEX_TEST_EXIT_TIMEOUT: '100' })
    expect(output).to.match(/Still running 100 ms after the last test.*TCPServerWrap/)
    expect(lastLine).to.equal('1 passed, 1 failed')
    expect(code).to.equal(1)
  })

  it('fails when it ends before its last test', async () => {
    const { code, lastLine } = await run('early-exit')
    expect(lastLine).to.equal('1 passed, 1 failed')
    expect(code).to.equal(1)
  })
})
