import { expect } from 'chai'
import { type FixtureProcess, forkFixture } from './processes.js'

const echo = (args: string[] = [], env = {}) =>
  forkFixture(new URL('./fixtures/echo.ts', import.meta.url), args, env)

describe('forkFixture', () => {
  it('gives arguments and environment to the child', async () => {
    const child = echo(['a', 'b c'], { FIXTURE: 'yes' })
    expect(await child.next()).to.deep.equal({ type: 'args', args: ['a', 'b c'], env: 'yes' })
  })

  it('loads the packages from source', async () => {
    const { from } = await echo().next('loaded')
    expect(from).to.match(/packages\/core\/src\/index\.ts$/)
  })

  it('finds a message by its type, and keeps the others', async () => {
    const child = echo()
    await child.next('loaded')
    child.send({ type: 'hello', text: 'there' })
    expect(await child.next('echo')).to.deep.equal({ type: 'echo', text: 'there' })
    expect(await child.next()).to.have.property('type', 'args')
  })

  it('tells how it ended', async () => {
    const child = echo()
    await child.next('args')
    child.send({ type: 'end' })
    expect(await child.exited).to.equal(3)
  })

  it('delivers what was sent before the end, and rejects what can no longer come', async () => {
    const child = echo()
    const never = child.next('never').catch((error: unknown) => error)
    await child.next('loaded')
    child.kill('SIGKILL')
    expect(await child.exited).to.equal('SIGKILL')
    expect(await child.next('args')).to.have.property('type', 'args')
    expect(await never)
      .to.be.an('error')
      .with.property('message')
      .that.matches(/No message 'never' from .*echo\.ts.*SIGKILL/)
  })

  describe('at the end of the test', () => {
    let child: FixtureProcess

    it('lives during it', async () => {
      child = echo()
      await child.next('loaded')
      child.kill('SIGSTOP')
    })

    it('is dead after it, even if it was frozen', async () => {
      expect(await child.exited).to.equal('SIGKILL')
      expect(() => process.kill(child.pid, 0)).to.throw(/ESRCH/)
    })
  })
})
