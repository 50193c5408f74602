// What the servers work on: accounts, in this process or in Redis.
import { setTimeout as pause } from 'node:timers/promises'

/** How long a withdrawal takes, in milliseconds. */
export const WORK = 30

export class Accounts {
  /** A Map and a Redis client both have `get` and `set`. */
  #balances
  #run

  /**
   * @param {import('ioredis').Redis | undefined} redis
   * @param {string} run keeps the accounts of several demos in one Redis apart
   */
  constructor(redis, run) {
    this.#balances = redis ?? new Map()
    this.#run = run
  }

  /** The name of an account: what it is stored under, and what is locked. */
  nameOf(user) {
    return `redismutex-demo:${this.#run}:${user}`
  }

  async balanceOf(user) {
    return Number(await this.#balances.get(this.nameOf(user)))
  }

  async setBalance(user, balance) {
    await this.#balances.set(this.nameOf(user), String(balance), 'EX', 60)
  }

  /** Reads, works, writes: right only as long as nobody else does so at the same time. */
  async withdraw(user, amount) {
    const began = Date.now()
    const read = await this.balanceOf(user)
    await pause(WORK)
    const wrote = read - amount
    await this.setBalance(user, wrote)
    return { began, read, wrote, ended: Date.now() }
  }
}
