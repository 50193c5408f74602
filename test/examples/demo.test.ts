import { expect } from 'chai'
import { App, embedded, folderOf, onRedis } from './app.js'

describe('the demo', function () {
  // Three processes load two frameworks: on a busy machine that takes its time.
  this.timeout(60_000)

  for (const [place, where] of [
    [embedded, 'one process'] as const,
    [onRedis, 'two processes that share a Redis'] as const,
  ]) {
    it(`shows ${place.name} what the lock does, checks itself, and ends`, async () => {
      const demo = new App(folderOf('demo'), 'main.js', place.env())
      expect(await demo.exited, demo.output).to.equal(0)

      const { output } = demo
      expect(output).to.include(`run in ${where}.`)
      expect(output).to.match(/overwrite each other: the balance is [1-9]\d*, and should be 0\.$/m)
      expect(output).to.match(/take turns: at most 1 at a time\.$/m)
      expect(output).to.match(/Nothing is lost: the balance is 0, and should be 0\.$/m)
      expect(output).to.match(/Nothing is lost: 8 of 8 balances are right\.$/m)
      expect(output).to.match(/^All \d+ checks passed\.$/m)
      expect(output).not.to.include('✗')
      for (const line of output.split('\n')) expect(line.length, line).to.be.at.most(100)
      // biome-ignore lint/suspicious/noControlCharactersInRegex: no colours where there is no terminal
      expect(output).not.to.match(/\x1b/)
    })
  }
})
