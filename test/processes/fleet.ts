import type { RedisMutexOptions } from '@redismutex/core'
import { type FixtureProcess, forkFixture, type Message } from '../support/processes.js'
import { freshPrefix, sharedRedis } from '../support/redis.js'

/** Processes that contend for the same locks in the run's own Redis. */
export class Fleet {
  readonly prefix: string = freshPrefix()
  readonly #options: RedisMutexOptions

  constructor(options: RedisMutexOptions = {}) {
    this.#options = options
  }

  /** The name of a lock in Redis. */
  lock(key: string): string {
    return this.prefix + key
  }

  async member(options: RedisMutexOptions = {}): Promise<Contender> {
    const { port } = sharedRedis()
    const contender = new Contender(
      forkFixture(new URL('./fixtures/contender.ts', import.meta.url), [
        JSON.stringify({ prefix: this.prefix, port, options: { ...this.#options, ...options } }),
      ]),
    )
    await contender.process.next('ready')
    return contender
  }

  members(count: number): Promise<Contender[]> {
    return Promise.all(Array.from({ length: count }, () => this.member()))
  }
}

export class Contender {
  constructor(readonly process: FixtureProcess) {}

  /** Starts to wait for the key. */
  async take(key: string): Promise<void> {
    this.process.send({ type: 'take', key })
    await this.process.next('waiting')
  }

  /** Holds what it waited for. */
  held(): Promise<Message> {
    return this.process.next('held')
  }

  give(): void {
    this.process.send({ type: 'give' })
  }

  async end(): Promise<void> {
    this.process.send({ type: 'end' })
    await this.process.exited
  }
}
