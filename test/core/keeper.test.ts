import { mock } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Store } from '@redismutex/core'
import { expect } from 'chai'
import { drift, now } from '../../packages/core/src/clock.js'
import { Keeper, type Leased } from '../../packages/core/src/keeper.js'
import { Tenure } from '../../packages/core/src/stores/store.js'
import { stall, until } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'

class Held extends Tenure {
  constructor(terms: Partial<Pick<Tenure, 'lease' | 'until' | 'deadline'>>) {
    super({} as never, { policy: {} } as never, 'owner')
    Object.assign(this, terms)
  }
}

describe('a keeper', () => {
  /** How long each renewal was to be for, and what answers them. */
  let renewals: number[]
  let answer: (ours: boolean) => void
  let keeper: Keeper

  beforeEach(() => {
    renewals = []
    const store: Partial<Store> = {
      renew: (_tenure, ms) => {
        renewals.push(ms)
        return new Promise((resolve) => {
          answer = resolve
        })
      },
    }
    keeper = new Keeper(store as Store)
  })

  /** Keeps a lease whose time has come to be renewed. */
  function kept(held: Held, at: number): Leased {
    const leased: Leased = {
      before: undefined,
      after: undefined,
      kept: false,
      held,
      end: () => expect.fail('it has not ended'),
      lose: () => expect.fail('it is not lost'),
    }
    keeper.keep(leased, at)
    atEnd(() => keeper.forget(leased))
    return leased
  }

  it('counts a renewed lease from when it was asked for, less a margin for the clocks', async () => {
    const at = Math.floor(now())
    const held = new Held({ lease: 10_000, deadline: at + 4000 })
    kept(held, at)
    expect(renewals).to.deep.equal([10_000])
    answer(true)
    await until(() => !held.renewing)
    expect(held.deadline).to.be.closeTo(at + 10_000 - drift(10_000), 0.001)
  })

  it('renews for no longer than the hold may last', async () => {
    const at = Math.floor(now())
    const held = new Held({ lease: 10_000, deadline: at + 4000, until: at + 4500 })
    kept(held, at)
    expect(renewals).to.deep.equal([4500])
    answer(true)
    await until(() => !held.renewing)
    expect(held.deadline).to.be.closeTo(at + 4500 - drift(4500), 0.001)
  })

  it('renews once at a time, whoever takes over meanwhile', async () => {
    const at = Math.floor(now())
    const held = new Held({ lease: 10_000, deadline: at + 4000 })
    const leased = kept(held, at)
    keeper.keep(leased, now())
    expect(renewals).to.deep.equal([10_000])
    answer(true)
    await until(() => !held.renewing)
    keeper.keep(leased, now())
    expect(renewals).to.deep.equal([10_000])
  })

  it('touches nothing when what it has renewed is over, and the next is held', async () => {
    const at = now()
    const held = new Held({ lease: 10_000, deadline: at + 1 })
    const leased = kept(held, at)
    const next = new Held({ lease: 10_000, deadline: at + 10_000, until: at + 10_000 })
    Object.assign(leased, { held: next })
    stall(5)
    answer(true)
    await until(() => !held.renewing)
    expect(held.deadline).to.equal(at + 1)
  })

  it('only waits while a renewal is on its way', async () => {
    const at = now()
    kept(new Held({ lease: 10_000, deadline: at + 4000 }), at)
    const set = mock.method(globalThis, 'setTimeout')
    atEnd(() => set.mock.restore())
    await sleep(50)
    // A long stall may be taken for a reason to look once.
    expect(set.mock.callCount()).to.be.below(3)
  })

  it('pauses before it tries again what has failed', async () => {
    const failing = { renew: async () => Promise.reject(new Error(`try ${++tries}`)) }
    let tries = 0
    keeper = new Keeper(failing as unknown as Store)
    const at = now()
    kept(new Held({ lease: 10_000, deadline: at + 4000 }), at)
    await sleep(50)
    // Twice a second.
    expect(tries).to.be.within(1, 1 + (now() - at) / 400)
  })
})
