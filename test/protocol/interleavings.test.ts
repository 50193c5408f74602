import { expect } from 'chai'
import fc from 'fast-check'
import type { Redis } from 'ioredis'
import { redisClients } from '../support/clients.js'
import { sharedRedis } from '../support/redis.js'
import { type Command, type Expected, Model } from './model.js'
import {
  type Answer,
  type Asked,
  asked,
  items,
  Mutexlike,
  Peer,
  released,
  run,
} from './redis-state.js'

const MUTEXES = 3
const OWNERS = 4
/** Ages are so far apart that a busy machine does not change their order, in ms. */
const AGE = 1_000_000
/** In microseconds. */
const HOUR = 3_600_000_000
const patient = { blockTime: 1_000_000_000, lease: 100_000, claim: 100_000, keep: 100_000 }

const owner = fc.integer({ min: 0, max: OWNERS - 1 })
/** Stands for whoever holds the lock then: most of what is sent comes from that one. */
const HOLDER = -1
const leaver = fc.oneof(
  { weight: 3, arbitrary: fc.constant(HOLDER) },
  { weight: 1, arbitrary: owner },
)
const waited = fc.integer({ min: 0, max: 3 })

/** Commands of one script, one at most for each mutex: they travel in one call. */
type Call = readonly (Command | undefined)[]

function callOf(...kinds: [fc.Arbitrary<Command>, ...fc.Arbitrary<Command>[]]): fc.Arbitrary<Call> {
  const command = fc.option(fc.oneof(...kinds), { nil: undefined, freq: 3 })
  return fc
    .array(command, { minLength: MUTEXES, maxLength: MUTEXES })
    .filter((all) => all.some((one) => one !== undefined))
}

const acquire = fc.record({ verb: fc.constant('acquire' as const), owner, waited })
const call: fc.Arbitrary<Call> = fc.oneof(
  { weight: 3, arbitrary: callOf(acquire) },
  {
    weight: 4,
    arbitrary: callOf(acquire, fc.record({ verb: fc.constant('try' as const), owner })),
  },
  {
    weight: 4,
    arbitrary: callOf(
      fc.record({
        verb: fc.constant('release' as const),
        owner: leaver,
        used: fc.option(fc.integer({ min: 0, max: 3 }), { nil: undefined, freq: 2 }),
        heir: fc.option(owner, { nil: undefined, freq: 2 }),
        waited,
      }),
    ),
  },
  {
    weight: 1,
    arbitrary: callOf(fc.record({ verb: fc.constant('renew' as const), owner: leaver })),
  },
  { weight: 2, arbitrary: callOf(fc.record({ verb: fc.constant('cancel' as const), owner })) },
  { weight: 1, arbitrary: callOf(fc.constant({ verb: 'vanish' as const })) },
)

/** Each call comes once, or again at once or after others: ioredis sends some twice. */
const calls = fc
  .array(fc.tuple(call, fc.option(fc.nat({ max: 6 }), { nil: undefined, freq: 3 })), {
    minLength: 1,
    maxLength: 25,
  })
  .map((drawn) => {
    const all: Call[] = []
    for (const [index, [one]] of drawn.entries()) {
      all.push(one)
      for (const [earlier, [repeated, after]] of drawn.slice(0, index + 1).entries()) {
        if (after !== undefined && earlier + after === index) all.push(repeated)
      }
    }
    return all
  })

describe('the scripts, in any order of calls', () => {
  let redis: Redis
  let peer: Peer

  beforeEach(async () => {
    const [client] = redisClients
    redis = client!.create(sharedRedis().port)
    peer = await Peer.start(client!.create(sharedRedis().port))
  })

  it('do for each lock what the model does, with rising tokens, and leave nothing that does not end', async function () {
    this.timeout(60_000)
    await fc.assert(
      fc.asyncProperty(calls, fc.boolean(), (all, isAhead) =>
        new Run(redis, peer).play(all, isAhead),
      ),
      { numRuns: 60 },
    )
  })
})

/** What a command of a call is about, and what is to come of it. */
interface Case {
  readonly one: Beside
  readonly command: Command
  readonly holder: number | undefined
  readonly expected: Expected
}

/** Some mutexes in Redis beside their models. */
class Run {
  readonly #redis: Redis
  readonly #peer: Peer
  readonly #all: readonly Beside[]

  constructor(redis: Redis, peer: Peer) {
    this.#redis = redis
    this.#peer = peer
    this.#all = Array.from({ length: MUTEXES }, () => new Beside(redis, peer))
  }

  /** One for all, as on one server. */
  get #fence(): string {
    return (this.#all[0] as Beside).mutex.fence
  }

  /** @param isAhead has Redis's clock been put back, so that it is behind the tokens? */
  async play(calls: readonly Call[], isAhead: boolean): Promise<void> {
    if (isAhead) await this.#redis.set(this.#fence, Date.now() * 1000 + HOUR)
    for (const call of calls) {
      await this.#send(call)
      for (const one of this.#all) await one.compare()
    }
    for (const owner of Array(OWNERS).keys()) {
      await this.#send(this.#all.map(() => ({ verb: 'cancel', owner })))
    }
    const names = this.#all.flatMap(({ mutex: { lock, queue } }) => [lock, queue])
    expect(await this.#redis.exists(...names), 'left behind').to.equal(0)
  }

  async #send(call: Call): Promise<void> {
    const heard = this.#peer.messages.length
    const cases = call.flatMap((drawn, index): Case[] => {
      if (!drawn) return []
      const one = this.#all[index] as Beside
      const { holder } = one.model
      const isHolder = 'owner' in drawn && drawn.owner === HOLDER
      const command = isHolder ? { ...drawn, owner: holder ?? 0 } : drawn
      return [{ one, command, holder, expected: one.model.apply(command) }]
    })
    const answers = await this.#answers(cases)
    const messages = (await this.#peer.heard()).slice(heard)
    for (const [index, one] of cases.entries()) one.one.check(one, answers[index], messages)
  }

  async #answers(cases: readonly Case[]): Promise<readonly (Answer | undefined)[]> {
    const [{ command }] = cases as [Case]
    if (command.verb === 'vanish') {
      await this.#redis.del(...cases.map(({ one }) => one.mutex.lock))
      return []
    }
    const verb = command.verb === 'try' ? 'acquire' : command.verb
    const names = cases.map(({ one }) => one.mutex.names)
    const args = cases.flatMap(({ one, command }) => one.argumentsOf(command))
    const answer = await run(this.#redis, verb, names, args, this.#fence)
    const answers = cases.length === 1 ? [answer] : (answer as readonly Answer[])
    expect(answers.length, 'answers').to.equal(cases.length)
    return answers
  }
}

/** One mutex in Redis beside its model. */
class Beside {
  readonly mutex: Mutexlike
  readonly model = new Model()
  readonly #redis: Redis
  readonly #owners: readonly string[]
  #token = 0

  constructor(redis: Redis, peer: Peer) {
    this.#redis = redis
    this.mutex = new Mutexlike(redis)
    this.#owners = Array.from({ length: OWNERS }, () => peer.owner())
  }

  argumentsOf(command: Command): string[] {
    if (command.verb === 'vanish') return []
    const owner = this.#owner(command.owner)
    switch (command.verb) {
      case 'acquire':
        return items.acquire(owner, this.#terms(command.waited))
      case 'try':
        return items.try(owner, this.#terms(0))
      case 'release': {
        const heir = command.heir === undefined ? undefined : this.#owner(command.heir)
        return items.release(owner, this.#used(command), heir, this.#terms(command.waited))
      }
      case 'renew':
        return items.renew(owner, 100_000)
      case 'cancel':
        return items.cancel(owner, this.#terms(0))
    }
  }

  #used({ used }: { readonly used: number | undefined }): number | undefined {
    return used === undefined ? undefined : this.#token + used
  }

  /** @param messages what the owners' process has been told */
  check(
    { command, holder, expected }: Case,
    answer: Answer | undefined,
    messages: readonly string[],
  ): void {
    const got = answer === undefined ? undefined : this.#read(command, answer, expected, holder)
    expect(got?.verdict, `${command.verb} is answered`).to.equal(expected.asked)
    if (got?.verdict === 'granted') {
      expect(got.others > 0, 'others waiting').to.equal(expected.others > 0)
      this.#rise(got.token)
    }
    const grants = messages.filter((text) => this.#isGrant(text))
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
  #read(
    command: Command,
    answer: Answer,
    { kept }: Expected,
    holder: number | undefined,
  ): Asked | undefined {
    switch (command.verb) {
      case 'acquire':
      case 'try':
        return asked(answer)
      case 'release': {
        const { kept: wasHeld, heir } = released(answer)
        expect(wasHeld, 'release says that it was held').to.equal(kept)
        // Only the holder's word counts.
        if (holder === command.owner) this.#token = Math.max(this.#token, this.#used(command) ?? 0)
        return heir
      }
      case 'renew': {
        const others = this.model.queue.length > 0 ? 2 : 1
        expect(Math.min(Number(answer), 2), 'renewal').to.equal(kept ? others : 0)
        return undefined
      }
      case 'cancel':
        expect(answer, 'cancel').to.equal(kept ? 1 : 0)
        return undefined
      case 'vanish':
        return undefined
    }
  }

  /** The same holder and the same queue, and all of it ends. */
  async compare(): Promise<void> {
    const { lock, queue } = this.mutex
    const { holder } = this.model
    const owner = holder === undefined ? null : this.#owner(holder)
    expect(await this.#redis.get(lock), 'the holder').to.equal(owner)
    const queued = this.model.queue.map((one) => this.#owner(one))
    expect(await this.mutex.queued(), 'the queue').to.deep.equal(queued)
    for (const name of [lock, queue]) {
      expect(await this.#redis.pttl(name), `${name} ends`).to.not.equal(-1)
    }
  }

  /** A grant to one of its owners: what is still on its way from a failed run does not count. */
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
