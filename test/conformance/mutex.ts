import { chaos } from './behaviours/chaos.js'
import { closing } from './behaviours/closing.js'
import { expiring } from './behaviours/expiring.js'
import { fairness } from './behaviours/fairness.js'
import { fencing } from './behaviours/fencing.js'
import { holding } from './behaviours/holding.js'
import { refusing } from './behaviours/refusing.js'
import { runningExclusively } from './behaviours/running-exclusively.js'
import { severalKeys } from './behaviours/several-keys.js'
import { variants } from './behaviours/variants.js'
import { waiting } from './behaviours/waiting.js'
import { Ground, type MakeStore, type Outside, type Traits } from './ground.js'

/** What every mutex does, whatever its store. */
export function mutexConformance(
  name: string,
  makeStore: MakeStore,
  outside: Outside = {},
  traits: Traits = {},
): void {
  describe(`a mutex on ${name}`, () => {
    const ground = new Ground(makeStore, outside, traits)
    beforeEach(() => ground.begin())

    describe('holding', () => holding(ground))
    describe('fairness', () => fairness(ground))
    describe('waiting', () => waiting(ground))
    describe('refusing', () => refusing(ground))
    describe('several keys', () => severalKeys(ground))
    describe('runExclusive', () => runningExclusively(ground))
    describe('expiry', () => expiring(ground))
    if (ground.traits.fencing) describe('fencing tokens', () => fencing(ground))
    describe('options of a call, and with()', () => variants(ground))
    describe('closing', () => closing(ground))
    describe('all of it at once', () => chaos(ground))
  })
}
