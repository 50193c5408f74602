import { setTimeout as sleep } from 'node:timers/promises'
import { type Lock, type Mutex, MutexError } from '@redismutex/core'
import { expect } from 'chai'
import { EXPIRING, type Ground, range, stall } from '../ground.js'

const KEYS = ['a', 'b', 'c']

/** What one key's data would see: who is at work on them, and with which token. */
class Resource {
  #worker: Lock | undefined
  #lastToken = 0n

  begin(lock: Lock, token: string | null): void {
    const other = this.#worker
    const isAtWork = other !== undefined && other.key !== null && !other.signal.aborted
    expect(isAtWork, 'two are at work at the same time').to.equal(false)
    this.#worker = lock
    if (token === null) return
    expect(BigInt(token) > this.#lastToken, `${token} > ${this.#lastToken}`).to.equal(true)
    this.#lastToken = BigInt(token)
  }

  end(lock: Lock): void {
    if (this.#worker === lock) this.#worker = undefined
  }
}

const chance = (of: number): boolean => Math.random() < of
const upTo = (most: number): number => Math.floor(Math.random() * most)

export function chaos(ground: Ground): void {
  it('keeps its promises, and leaves nothing behind', async () => {
    const isShared = ground.outside.leftovers !== undefined
    const variants = [
      {},
      EXPIRING,
      { blockTime: 400, expiry: Number.POSITIVE_INFINITY, lease: 200 },
      { maxWaiting: 3 },
      { blocking: false },
    ]
    const mutexes = [
      ...variants.map((options) => ground.mutex({ blockTime: 500, ...options })),
      ...variants.map((options) =>
        (isShared ? ground.elsewhere : ground.mutex).call(ground, { blockTime: 500, ...options }),
      ),
    ]
    const resources = new Map(KEYS.map((key) => [`${ground.key}:${key}`, new Resource()]))
    let acquired = 0

    const acquire = (mutex: Mutex, keys: string[]): Promise<Lock | null> => {
      if (chance(0.2)) return mutex.tryAcquire(keys)
      if (chance(0.2)) return mutex.acquireLock(keys, { signal: AbortSignal.timeout(upTo(40)) })
      return mutex.acquireLock(keys)
    }

    const visit = async (): Promise<void> => {
      await sleep(upTo(100))
      const mutex = mutexes[upTo(mutexes.length)] as Mutex
      const keys = [...resources.keys()].filter(() => chance(0.4))
      const lock = await acquire(mutex, keys.length > 0 ? keys : [...resources.keys()])
      if (!lock || lock.signal.aborted) return
      acquired++
      for (const [key, token] of lock.fencingTokens) resources.get(key)?.begin(lock, token)
      if (chance(0.1)) stall(3)
      else await sleep(chance(0.1) ? 110 : upTo(4))
      for (const key of lock.keys) resources.get(key)?.end(lock)
      // Some forget to; closing or the expiry does it for them.
      if (!chance(0.05)) await lock.release()
    }

    const forgiving = (error: unknown) => {
      // Any refusal and any loss will do, but no other error. Only in a very short time the store
      // may have no answer.
      const { prompt } = ground.traits
      if (error instanceof MutexError && (error.code !== 'ERR_MUTEX_STORE' || !prompt)) return
      if ((error as Error)?.message.endsWith(`blockTime (${EXPIRING.blockTime} ms)`)) return
      if ((error as Error)?.name === 'TimeoutError') return
      throw error
    }
    // On a busy machine all of a round may come too late.
    while (acquired === 0) await Promise.all(range(120).map(() => visit().catch(forgiving)))
    await Promise.all(mutexes.map((mutex) => mutex.close()))
    for (const mutex of mutexes) expect(mutex.stats()).to.include({ held: 0, waiting: 0 })
    expect(await ground.leftovers()).to.deep.equal([])
  })
}
