import { expect } from 'chai'
import { deploymentNames } from './deployment.js'
import { chaos, type Outcome } from './run.js'

/** Things go wrong often, and times are short, so that little time shows much. */
const short = {
  duration: 1500,
  clients: 2,
  workers: 6,
  pace: [50, 300] as const,
  calm: 300,
  terms: { blockTime: 1200, delay: 150, lease: 600, storeTimeout: 300, expiry: 2000 },
}

describe('chaos', () => {
  for (const [index, deployment] of deploymentNames.entries()) {
    it(`breaks no promise on ${deployment}`, async function () {
      this.timeout(90_000)
      const outcome: Outcome = await chaos({ deployment, seed: index + 1, ...short })
      expect(outcome.violations).to.deep.equal([])
      expect(outcome.held).to.be.above(0)
      expect(Object.keys(outcome.faults).length).to.be.above(0)
    })
  }
})
