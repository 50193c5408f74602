describe('good', () => {
  it('passes', () => {})
  it('is not written yet')
})
