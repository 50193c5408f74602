import { expect } from 'chai'
import { sorted } from '../src/samples.js'
import { fairness, median, percentile, slidingSums } from '../src/statistics.js'

describe("the benchmark's statistics", () => {
  it('have the middle of an odd and of an even number of figures', () => {
    expect(median([9, 1, 5])).to.equal(5)
    expect(median([8, 1, 4, 2])).to.equal(3)
    expect(median([7])).to.equal(7)
    expect(median([])).to.be.NaN
  })

  it('have percentiles by nearest rank, the last one being the highest', () => {
    const figures = Array.from({ length: 200 }, (_, index) => index + 1)
    expect([0, 50, 99, 99.5, 100].map((percent) => percentile(figures, percent))).to.deep.equal([
      1, 100, 198, 199, 200,
    ])
    expect(percentile([3], 99)).to.equal(3)
    expect(percentile([], 50)).to.be.NaN
  })

  it("have Jain's index between 1 and one in n", () => {
    expect(fairness([5, 5, 5, 5])).to.equal(1)
    expect(fairness([20, 0, 0, 0])).to.equal(0.25)
    expect(fairness([3, 1])).to.equal(0.8)
    expect(fairness([0, 0])).to.be.NaN
  })

  it('have the sums of figures in a row', () => {
    expect([...slidingSums([1, 2, 3, 4], 3)]).to.deep.equal([6, 9])
    expect([...slidingSums([1, 2], 3)]).to.deep.equal([])
  })

  it('have the samples of several processes in order', () => {
    const parts = [Float64Array.of(3, 1), Float64Array.of(), Float64Array.of(10, 2)]
    expect([...sorted(parts)]).to.deep.equal([1, 2, 3, 10])
  })
})
