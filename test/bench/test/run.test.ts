import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect } from 'chai'

const run = promisify(execFile)
/** What was built of it, as `pnpm bench` runs it. */
const main = fileURLToPath(new URL('../dist/bench/src/main.js', import.meta.url))
const bench = (...args: string[]) => run(process.execPath, [main, ...args])

describe('the benchmark', () => {
  it('runs, in processes of its own, and says what it has measured', async function () {
    this.timeout(90_000)
    const names = ['one-at-a-time', 'hand-over']
    const { stdout } = await bench(...names, '--quick', '--only', 'ours', '--only', 'floor')
    expect(stdout).to.match(/^redismutex +[\d,.]+ /m)
    expect(stdout).to.match(/^two plain commands +[\d,.]+ /m)
    expect(stdout).to.match(/^one-at-a-time +wait p50, × floor +≤ 1.1 +[\d.]+ +(met|MISSED)$/m)
    expect(stdout).to.match(/^hand-over +p50, × one PING +≤ 1.3 +[\d.]+ +(met|MISSED)$/m)
  })

  it('refuses a scenario that there is not, and says which there are', async function () {
    this.timeout(60_000)
    const failure = await bench('no-such').catch((error) => error)
    expect(failure.code).to.equal(1)
    expect(failure.stderr)
      .to.match(/no scenario is named no-such/)
      .and.match(/^ {2}64-waiters /m)
  })
})
