import { setTimeout as sleep } from 'node:timers/promises'
import { now } from '../../clock.js'
import type { RedisClient } from '../redis/client.js'
import { Courier, type Freight } from '../redis/courier.js'
import { besideOf } from '../redis/names.js'
import { read, type Script, scriptOf } from '../redis/scripts.js'
import type { Errand, Settled } from '../redis/trip.js'
import { Watch, type Watcher } from '../redis/watch.js'

/** What is asked of a master. To `cancel` is to release what nobody wants or counts on. */
export type Verb = 'release' | 'cancel' | 'renew' | 'acquire'

/** The Redis keys of one mutex on a master, without ioredis's own prefix. */
export interface Names {
  readonly lock: string
  readonly waiting: string
  readonly fence: string
}

const load = (verb: Exclude<Verb, 'cancel'>): Script =>
  scriptOf(read('quorum'), read(`quorum-${verb}`))

export const freight: Freight<Verb, Names> = {
  scripts: {
    release: load('release'),
    cancel: { ...load('release'), canWait: true },
    // What is held is kept by the others.
    renew: { ...load('renew'), canWait: true },
    acquire: { ...load('acquire'), takes: true, canWait: true },
  },
  pack: (keys, { lock, waiting, fence }) => void keys.push(lock, waiting, fence),
}

interface Sending {
  readonly names: Names
  readonly args: readonly string[]
  readonly timeout: number
}

/** A vote that is to be taken back, whatever the master has made of it. */
export interface Undoing extends Sending {
  /** How long the vote can last. */
  readonly lease: number
  /** Of what was sent for it. */
  readonly settled: Settled
}

/** One of the masters: what is on its way to it, whether it answers, what is to be taken back there. */
export class Master implements Watcher {
  /**
   * Does it owe an answer that nobody waits for any more? Then nothing new is asked of it before it
   * is heard of again: it would only pile up before a server that is down.
   */
  silent = false
  /** How long it took to answer last, in ms. */
  took = 0
  readonly #client: RedisClient
  readonly #courier: Courier<Verb, Names>
  readonly #watch: Watch
  readonly #hopeful = new Set<() => void>()
  readonly #undoing = new Set<Promise<void>>()
  #open = false

  constructor(client: RedisClient) {
    this.#client = client
    this.#watch = Watch.of(client)
    this.#courier = new Courier(client, freight, this.#watch)
  }

  open(): void {
    this.#open = true
    this.silent = false
    this.#courier.open()
    this.#watch.open(this)
  }

  close(): void {
    this.#open = false
    this.#watch.close(this)
  }

  broken(): void {
    this.#courier.broken()
  }

  restored(): void {
    this.#courier.restored()
  }

  ended(): void {}

  /** How often the connection has broken: what was in flight may be executed twice. */
  get breaks(): number {
    return this.#watch.breaks
  }

  namesOf(lock: string): Names {
    const beside = besideOf(lock, this.#client.options?.keyPrefix ?? '')
    return {
      lock,
      waiting: `redismutex:quorum-waiting:${beside}`,
      fence: `redismutex:quorum-fence:${beside}`,
    }
  }

  send(verb: Verb, errand: Errand<Names>): void {
    this.#courier.send(verb, {
      names: errand.names,
      timeout: errand.timeout,
      pack: (args) => errand.pack(args),
      answered: (answer, sent) => {
        this.took = now() - sent
        this.#heard()
        errand.answered(answer, sent)
      },
      failed: (error, settled, sent) => {
        this.silent = true
        void settled.then(() => this.#heard())
        errand.failed(error, settled, sent)
      },
    })
  }

  #heard(): void {
    if (!this.silent) return
    this.silent = false
    const hopeful = [...this.#hopeful]
    this.#hopeful.clear()
    for (const hear of hopeful) hear()
  }

  /** Calls `hear` once, when a silent master is heard of again. */
  await(hear: () => void): void {
    this.#hopeful.add(hear)
  }

  forget(hear: () => void): void {
    this.#hopeful.delete(hear)
  }

  /** Takes a vote back until the master says that it has, or the vote's time is over. */
  undo(undoing: Undoing): void {
    const going = this.#undo(undoing).finally(() => this.#undoing.delete(going))
    this.#undoing.add(going)
  }

  async #undo({ names, args, lease, timeout, settled }: Undoing): Promise<void> {
    const unsure = !(await settled)
    let until = now() + lease
    for (let pause = 50; now() < until; pause = Math.min(2 * pause, 1000)) {
      const done = !this.silent && (await this.#answers('cancel', { names, args, timeout }))
      if (done && !unsure) return
      if (!this.#open || this.#client.status === 'end') return
      // What has been given up is sent by the next connection, however late there is one.
      if (this.#courier.hangs || (unsure && this.#watch.lost)) until = now() + lease
      await sleep(pause, undefined, { ref: false })
    }
  }

  #answers(verb: Verb, { names, args, timeout }: Sending): Promise<boolean> {
    return new Promise((resolve) => {
      this.send(verb, {
        names,
        timeout,
        pack: (all) => void all.push(...args),
        answered: () => resolve(true),
        failed: () => resolve(false),
      })
    })
  }

  /** Resolves when all that was sent has been answered, and all that was left taken back. */
  async idle(): Promise<void> {
    await this.#courier.idle()
    while (this.#undoing.size > 0) await Promise.all(this.#undoing)
  }
}
