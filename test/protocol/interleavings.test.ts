import { expect } from 'chai'
import fc from 'fast-check'
import type { Redis } from 'ioredis'
import { redisClients } from '../support/clients.js'
import { sharedRedis } from '../support/redis.js'
import { type Command, Model } from './model.js'
import { type Asked, Mutexlike, Peer } from './redis-state.js'

const OWNERS = 4
/** Ages are so far apart that a busy machine does not change their order, in ms. */
const AGE = 1_000_000
/** In microseconds. */
const HOUR = 3_600_000_000
const patient = { blockTime: 1_000_000_000, lease: 100_000, claim: 100_000, keep: 100_000 }

const owner = fc.integer({ min: 0, max: OWNERS - 1 })
const waited = fc.integer({ min: 0, max: 3 })

const command: fc.Arbitrary<Command> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ verb: fc.constant('acquire' as const), owner, waited }) },
  { weight: 1, arbitrary: fc.record({ verb: fc.constant('try' as const), owner }) },
  {
    weight: 3,
    arbitrary: fc.record({
      verb: fc.constant('release' as const),
      owner,
      used: fc.integer({ min: 0, max: 3 }),
      heir: fc.option(owner, { nil: undefined }),
      waited,
    }),
  },
  { weight: 1, arbitrary: fc.record({ verb: fc.constant('renew' as const), owner }) },
  { weight: 2, arbitrary: fc.record({ verb: fc.constant('cancel' as const), owner }) },
  { weight: 1, arbitrary: fc.constant({ verb: 'vanish' as const }) },
)

/** Each command comes once, or again at once or after others: ioredis sends some twice. */
const commands = fc
  .array(fc.tuple(command, fc.option(fc.nat({ max: 6 }), { nil: undefined, freq: 3 })), {
    minLength: 1,
    maxLength: 25,
  })
  .map((drawn) => {
    const all: Command[] = []
    for (const [index, [one]] of drawn.entries()) {
      all.push(one)
      for (const [earlier, [repeated, after]] of drawn.slice(0, index + 1).entries()) {
        if (after !== undefined && earlier + after === index) all.push(repeated)
      }
    }
    return all
  })

describe('the scripts, in any order of commands', () => {
  let redis: Redis
  let peer: Peer

  beforeEach(async () => {
    const [client] = redisClients
    redis = client!.create(sharedRedis().port)
    peer = await Peer.start(client!.create(sharedRedis().port))
  })

  it('do what the model does, with rising tokens, and leave nothing that does not end', async function () {
    this.timeout(60_000)
    await fc.assert(
      fc.asyncProperty(commands, fc.boolean(), (all, isAhead) =>
        new Run(redis, peer).play(all, isAhead),
      ),
      { numRuns: 60 },
    )
  })
})

/** One mutex in Redis beside its model. */
class Run {
  readonly #redis: Redis
  readonly #peer: Peer
  readonly #mutex: Mutexlike
  readonly #model = new Model()
  readonly #owners: readonly string[]
  #token = 0

  constructor(redis: Redis, peer: Peer) {
    this.#redis = redis
    this.#peer = peer
    this.#mutex = new Mutexlike(redis)
    this.#owners = Array.from({ length: OWNERS }, () => peer.owner())
  }

  /** @param isAhead has Redis's clock been put back, so that it is behind the tokens? */
  async play(commands: readonly Command[], isAhead: boolean): Promise<void> {
    if (isAhead) await this.#redis.set(this.#mutex.fence, Date.now() * 1000 + HOUR)
    for (const command of commands) {
      await this.#send(command)
      await this.#compare()
    }
    for (const owner of this.#owners.keys()) await this.#send({ verb: 'cancel', owner })
    const { lock, queue } = this.#mutex
    expect(await this.#redis.exists(lock, queue), 'left behind').to.equal(0)
  }

  async #send(command: Command): Promise<void> {
    const heard = this.#peer.messages.length
    const holder = this.#model.holder
    const expected = this.#model.apply(command)
    const asked = await this.#answer(command, expected.kept, holder)
    expect(asked?.verdict, `${command.verb} is answered`).to.equal(expected.asked)
    if (asked?.verdict === 'granted') {
      expect(asked.others > 0, 'others waiting').to.equal(expected.others > 0)
      this.#rise(asked.token)
    }
    const grants = (await this.#peer.heard()).slice(heard).filter((text) => this.#isGrant(text))
    const to = grants.map((text) => text.split('|').at(-1))
    const pushed = expected.pushed === undefined ? [] : [numberOf(this.#owner(expected.pushed))]
    expect(to, 'told by a push').to.deep.equal(pushed)
    for (const grant of grants) {
      const [, token, others] = grant.split('|').map(Number)
      this.#rise(token!)
      expect(others! > 0, 'others waiting').to.equal(expected.others > 0)
    }
  }

  /** Gives what an ask was answered with, if the command has one in it. */
  async #answer(
    command: Command,
    kept: boolean | undefined,
    holder: number | undefined,
  ): Promise<Asked | undefined> {
    const { lock } = this.#mutex
    switch (command.verb) {
      case 'acquire':
        return this.#mutex.acquire(this.#owner(command.owner), this.#terms(command.waited))
      case 'try':
        return this.#mutex.try(this.#owner(command.owner), this.#terms(0))
      case 'release': {
        const used = this.#token + command.used
        const heir = command.heir === undefined ? undefined : this.#owner(command.heir)
        const terms = this.#terms(command.waited)
        const name = this.#owner(command.owner)
        const released = await this.#mutex.release(name, used, heir, terms)
        expect(released.kept, 'release says that it was held').to.equal(kept)
        // Only the holder's word counts.
        if (holder === command.owner) this.#token = Math.max(this.#token, used)
        return released.heir
      }
      case 'renew': {
        const others = this.#model.queue.length > 0 ? 2 : 1
        const answer = await this.#mutex.renew(this.#owner(command.owner), 100_000)
        expect(Math.min(Number(answer), 2), 'renewal').to.equal(kept ? others : 0)
        return undefined
      }
      case 'cancel': {
        const name = this.#owner(command.owner)
        expect(await this.#mutex.cancel(name, this.#terms(0)), 'cancel').to.equal(kept)
        return undefined
      }
      case 'vanish':
        await this.#redis.del(lock)
        return undefined
    }
  }

  /** The same holder and the same queue, and all of it ends. */
  async #compare(): Promise<void> {
    const { lock, queue } = this.#mutex
    const { holder } = this.#model
    const owner = holder === undefined ? null : this.#owner(holder)
    expect(await this.#redis.get(lock), 'the holder').to.equal(owner)
    const queued = this.#model.queue.map((one) => this.#owner(one))
    expect(await this.#mutex.queued(), 'the queue').to.deep.equal(queued)
    for (const name of [lock, queue]) {
      expect(await this.#redis.pttl(name), `${name} ends`).to.not.equal(-1)
    }
  }

  /** A grant to one of this run's owners: what is still on its way from a failed run does not count. */
  #isGrant(message: string): boolean {
    const [what, ...rest] = message.split('|')
    return what === 'grant' && this.#owners.map(numberOf).includes(rest.at(-1))
  }

  #rise(token: number): void {
    expect(token, 'a token').to.be.above(this.#token)
    this.#token = token
  }

  #owner(index: number): string {
    return this.#owners[index] as string
  }

  #terms(waited: number): object {
    return { ...patient, waited: waited * AGE }
  }
}

const numberOf = (owner: string): string | undefined => owner.split('|')[1]
