import { setTimeout as sleep } from 'node:timers/promises'
import { type FixtureProcess, forkFixture } from '../support/processes.js'
import type { TcpProxy } from '../support/proxy.js'
import type { Task } from './client.js'
import { clock, isShared } from './clock.js'
import type { Deployment, Trouble } from './deployment.js'
import type { Event, Terms } from './history.js'
import { type NetworkTrouble, networkTroubles, Ways } from './network.js'
import type { Random } from './random.js'

/** Everything about a client's task but what the world adds to it. */
export type Errand = Omit<Task, 'client' | 'seed' | 'connection'>

/** How long a busy machine may take to start a process, in ms. */
const START = 60_000

/** How often the suite looks whether it runs itself, and what it takes for slow, in ms. */
const BEAT = 20
const SLOW = 20

/** How often the suite looks who the masters are, in ms. */
const LOOK = 500
/** For how long a master may have been cut off before another is seen in its place, in ms. */
const UNSEEN = 3000

interface Seat {
  readonly ways: Ways
  name: string
  process: FixtureProcess
  isBusy: boolean
}

/** A deployment, the clients, and the network between them: all that can fail. */
export class World {
  readonly events: Event[] = []
  readonly faults = new Map<string, number>()
  readonly failures: string[] = []
  readonly #deployment: Deployment
  readonly #errand: Errand
  readonly #random: Random
  readonly #seats: Seat[] = []
  readonly #going = new Set<Promise<void>>()
  /** The processes that are to end. */
  readonly #leaving = new WeakSet<FixtureProcess>()
  readonly #beat: NodeJS.Timeout
  readonly #watch: Promise<void> | undefined
  #isServerBusy = false
  #isElecting = false
  #isOver = false
  /** The masters that were seen last; unknown while others may take over. */
  #masters: string | undefined
  #births = 0

  constructor(deployment: Deployment, errand: Errand, random: Random) {
    this.#deployment = deployment
    this.#errand = errand
    this.#random = random
    let beat = clock()
    this.#beat = setInterval(() => {
      const t = clock()
      if (t - beat > BEAT + SLOW) this.#note({ e: 'slow', client: '', t, from: beat })
      beat = t
    }, BEAT)
    if (deployment.troubles.some(({ elects }) => elects)) this.#watch = this.#watchMasters()
  }

  get terms(): Terms {
    return this.#errand.terms
  }

  async populate(count: number): Promise<void> {
    for (let index = 0; index < count; index++) {
      const ways = await Ways.to(this.#deployment.nodes)
      const name = `client ${index}.${++this.#births}`
      this.#seats.push({ ways, name, process: this.#start(name, ways), isBusy: false })
    }
    await Promise.all(this.#seats.map((seat) => this.#compareClocks(seat.process)))
  }

  #start(name: string, ways: Ways): FixtureProcess {
    const task: Task = {
      ...this.#errand,
      client: name,
      seed: Math.floor(this.#random.next() * 2 ** 32),
      connection: this.#deployment.connection(ways.seen),
    }
    const process = forkFixture(new URL('./client.ts', import.meta.url), [JSON.stringify(task)])
    void process.exited.then((exit) => {
      if (this.#isOver || this.#leaving.has(process)) return
      this.#note({ e: 'killed', client: name, t: clock() })
      this.failures.push(`${name} ended by itself with ${exit}`)
    })
    return process
  }

  async #compareClocks(process: FixtureProcess): Promise<void> {
    const before = clock()
    process.send({ type: 'clock' })
    const { t } = await process.next('clock', START)
    if (isShared(before, Number(t), clock())) return
    throw new Error('the processes of this machine share no monotonic clock')
  }

  /** Lets something go wrong, if what is drawn can just now. */
  strike(): void {
    const random = this.#random
    const kind = random.next()
    if (kind < 0.35) this.#troubleServers(random.pick(this.#deployment.troubles, weightOf))
    else if (kind < 0.75) this.#troubleNetwork(random.pick(networkTroubles, weightOf))
    else this.#troubleClient(random.pick(this.#seats), random.next())
  }

  /** Everything ends that goes wrong just now. */
  async calm(): Promise<void> {
    while (this.#going.size > 0) await Promise.all(this.#going)
    await this.#deployment.settled()
  }

  /** The clients finish what they do, and end. */
  async leave(): Promise<void> {
    for (const { process } of this.#seats) process.send({ type: 'end' })
    const end = Promise.all(this.#seats.map(({ process }) => process.exited))
    clearInterval(this.#beat)
    this.#isOver = true
    await this.#watch
    const exits = await Promise.race([end, sleep(30_000, undefined, { ref: false })])
    if (!exits) throw new Error('a client does not end within 30 s')
    for (const [index, exit] of exits.entries()) {
      if (exit !== 0) this.failures.push(`${this.#seats[index]?.name} ended with ${exit}`)
    }
  }

  #note(event: Event): void {
    this.events.push(event)
  }

  #go(kind: string, happening: Promise<unknown>): void {
    this.faults.set(kind, (this.faults.get(kind) ?? 0) + 1)
    const going = happening
      .then(
        () => {},
        (error: unknown) => void this.failures.push(`${kind}: ${(error as Error).message}`),
      )
      .finally(() => this.#going.delete(going))
    this.#going.add(going)
  }

  #troubleServers(trouble: Trouble): void {
    if (this.#isServerBusy) return
    this.#isServerBusy = true
    this.#isElecting = trouble.elects ?? false
    const from = clock()
    const { kind } = trouble
    const happening = trouble.happen(this.#random, this.terms).finally(() => {
      this.#isServerBusy = false
      this.#isElecting = false
      this.#masters = undefined
      const span = { client: '', t: clock(), from, kind }
      this.#note({ e: 'disturbed', ...span })
      if (trouble.loses) this.#note({ e: 'forgot', ...span })
    })
    this.#go(kind, happening)
  }

  /**
   * A machine so busy that a server seems dead to the others has them elect another one, unasked: that
   * may lose data as well.
   */
  async #watchMasters(): Promise<void> {
    while (!this.#isOver) {
      await sleep(LOOK)
      const since = clock()
      const masters = await this.#deployment.masters().catch(() => [])
      const seen = this.#isElecting ? undefined : masters.map(({ port }) => port).join()
      const changed = seen !== this.#masters && seen !== undefined && this.#masters !== undefined
      this.#masters = seen
      if (!changed) continue
      const kind = 'failover: by itself'
      const healed = this.#deployment.settled().finally(() => {
        const span = { client: '', t: clock(), from: since - UNSEEN, kind }
        this.#note({ e: 'disturbed', ...span })
        this.#note({ e: 'forgot', ...span })
      })
      this.#go(kind, healed)
      await healed.catch(() => {})
      this.#masters = undefined
    }
  }

  #troubleNetwork(trouble: NetworkTrouble): void {
    const random = this.#random
    const { ways, name } = random.pick(this.#seats)
    const proxies = ways.free(random)
    if (proxies.length === 0) return
    const length = trouble.length(random, this.terms.lease)
    const from = clock()
    const happening = ways
      .suffer(proxies as TcpProxy[], trouble, random, () => sleep(length))
      .finally(() => this.#note({ e: 'cut off', client: name, t: clock(), from }))
    this.#go(`network: ${trouble.kind}`, happening)
  }

  #troubleClient(seat: Seat, kind: number): void {
    if (seat.isBusy) return
    seat.isBusy = true
    const { lease } = this.terms
    const random = this.#random
    const after = () => {
      seat.isBusy = false
    }
    if (kind < 0.35) {
      const pause = random.between(0, 500)
      this.#go('client killed', this.#replace(seat, pause).finally(after))
    } else if (kind < 0.7) {
      const ms = random.between(20, lease / 2)
      this.#go('client stopped shortly', this.#stop(seat, ms).finally(after))
    } else if (kind < 0.9) {
      const ms = lease * random.between(1.1, 2.5)
      this.#go('client stopped beyond the lease', this.#stop(seat, ms).finally(after))
    } else {
      const ms = lease * random.between(0.2, 1.5)
      const both = this.#stop(seat, ms, false).then(() => this.#replace(seat, 0))
      this.#go('client stopped, then killed', both.finally(after))
    }
  }

  async #replace(seat: Seat, pause: number): Promise<void> {
    const { name: client } = seat
    this.#leaving.add(seat.process)
    seat.process.kill('SIGKILL')
    this.#note({ e: 'killed', client, t: clock() })
    await seat.process.exited
    await sleep(pause)
    seat.name = `${client.split('.')[0]}.${++this.#births}`
    seat.process = this.#start(seat.name, seat.ways)
  }

  async #stop(seat: Seat, ms: number, goesOn = true): Promise<void> {
    const { name: client } = seat
    const from = clock()
    seat.process.kill('SIGSTOP')
    await sleep(ms)
    this.#note({ e: 'stopped', client, t: clock(), from })
    if (goesOn) seat.process.kill('SIGCONT')
  }
}

const weightOf = ({ weight }: { weight: number }): number => weight
