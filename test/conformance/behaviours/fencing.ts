import { expect } from 'chai'
import { aborted, EXPIRING, type Ground, patiently, range } from '../ground.js'

export function fencing(ground: Ground): void {
  const isRising = (tokens: readonly (string | null)[]) => {
    for (const token of tokens) expect(token).to.match(/^[1-9]\d*$/)
    const numbers = tokens.map((token) => BigInt(token as string))
    for (const [index, number] of numbers.entries()) {
      const before = numbers[index - 1]
      if (before !== undefined) expect(number > before, `${number} > ${before}`).to.equal(true)
    }
  }

  it('rise with every acquisition', async () => {
    const tokens: (string | null)[] = []
    const mutexes = [ground.mutex(), ground.mutex()] as const
    for (const n of range(10)) {
      await mutexes[n % 2 ? 0 : 1].runExclusive(ground.key, (lock) => {
        tokens.push(lock.fencingToken)
      })
    }
    isRising(tokens)
  })

  it('rise with every hand-over, far beyond what one grant reserves', async () => {
    const mutex = ground.mutex()
    const tokens: (string | null)[] = []
    await Promise.all(
      range(2500).map(() =>
        mutex.runExclusive(ground.key, (lock) => {
          tokens.push(lock.fencingToken)
        }),
      ),
    )
    expect(tokens).to.have.length(2500)
    isRising(tokens)
  })

  it('rise over an expiry', async () => {
    const mutex = ground.mutex(EXPIRING)
    const lock = await patiently(() => mutex.acquireLock(ground.key))
    const token = lock.fencingToken
    await aborted(lock.signal)
    await ground.mutex().runExclusive(ground.key, (next) => isRising([token, next.fencingToken]))
  })

  it('stay the same as long as one holds', async () => {
    const mutex = ground.mutex()
    const lock = await mutex.acquireLock(ground.key)
    const token = lock.fencingToken
    const waiter = mutex.acquireLock(ground.key)
    expect(lock.fencingToken).to.equal(token)
    await lock.release()
    await (await waiter).release()
  })
}
