import * as core from '@redismutex/core'
import { expect } from 'chai'

describe('the workspace', () => {
  it('loads packages from source', () => {
    expect(core).to.be.a('module')
  })
})
