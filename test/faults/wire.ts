import { expect } from 'chai'
import type { Redis } from 'ioredis'
import type { TcpProxy } from '../support/proxy.js'

type Call = (...args: Parameters<Redis['evalsha']>) => Promise<unknown>

/** A client's script calls, each of which can be kept on its way there or back. */
export class Wire {
  readonly #kept: (() => void)[] = []
  #keep: 'requests' | 'replies' | undefined
  /** How many have had their reply. */
  answered = 0

  constructor(redis: Redis) {
    const send = redis.evalsha.bind(redis) as Call
    const call: Call = async (...args) => {
      if (this.#keep === 'requests') await this.#wait()
      const reply = await send(...args)
      if (this.#keep === 'replies') await this.#wait()
      this.answered++
      return reply
    }
    Object.assign(redis, { evalsha: call })
  }

  get kept(): number {
    return this.#kept.length
  }

  /** From now on nothing is sent, or nothing arrives. */
  keep(what: 'requests' | 'replies'): void {
    this.#keep = what
  }

  /** Lets pass what was kept, and what comes. */
  pass(): void {
    this.#keep = undefined
    for (const pass of this.#kept.splice(0)) pass()
  }

  /** Lets only one of those pass that were kept, counted from the oldest. */
  passOne(index: number): void {
    for (const pass of this.#kept.splice(index, 1)) pass()
  }

  /** From now on all passes, but what was kept stays where it is until `pass`. */
  keepNoMore(): void {
    this.#keep = undefined
  }

  #wait(): Promise<void> {
    return new Promise((resolve) => this.#kept.push(resolve))
  }
}

/** The next script call is given up by the client, and lands when it is told to. */
export function giveUpNext(
  redis: Redis,
  when: Promise<void> = Promise.resolve(),
): () => Promise<unknown> {
  const send = redis.evalsha.bind(redis) as (...args: unknown[]) => Promise<unknown>
  let land = async (): Promise<unknown> => expect.fail('nothing has been asked')
  const giveUp = async (...args: unknown[]) => {
    Object.assign(redis, { evalsha: send })
    land = () => send(...args)
    await when
    throw new Error('Command timed out')
  }
  Object.assign(redis, { evalsha: giveUp })
  return () => land()
}

/**
 * The next call of a script is lost with its connection, so that the client sends it again. What is
 * given sends it once more: as if it had not been lost, but very late.
 * @param after how long the connection does not answer before it breaks
 */
export function loseNext(
  redis: Redis,
  sha: string,
  proxy: TcpProxy,
  after: number = 20,
): (by: Redis) => Promise<unknown> {
  type Args = [string, ...unknown[]]
  const send = redis.evalsha.bind(redis) as (...args: Args) => Promise<unknown>
  let lost: Args | undefined
  const lose = (...args: Args) => {
    if (args[0] !== sha || lost) return send(...args)
    lost = args
    proxy.pause('requests')
    setTimeout(() => {
      proxy.cut()
      proxy.resume()
    }, after)
    return send(...args)
  }
  Object.assign(redis, { evalsha: lose })
  return (by) => {
    expect(lost, 'what was lost').to.not.equal(undefined)
    return by.evalsha(...(lost as Parameters<Redis['evalsha']>))
  }
}
