import { withdrawAtOnce } from './load.js'
import { mostAtOnce, timeOf, workOf } from './measure.js'
import { expect, say, title } from './screen.js'
import { timeline } from './timeline.js'

const TEN_TIMES = { times: 10, amount: 10 }
const FOUR_TIMES = { times: 4, amount: 25 }

export async function withoutLock({ accounts, urls }) {
  title('1  Without the lock: Anna has 100 and takes out 10, ten times at once')
  await accounts.setBalance('anna', 100)
  const done = await withdrawAtOnce(urls, 'without-lock', ['anna'], TEN_TIMES)
  const balance = await accounts.balanceOf('anna')

  draw(requestByRequest(done))
  expect(mostAtOnce(done) > 1, `The requests overlap: up to ${mostAtOnce(done)} at the same time.`)
  expect(balance !== 0, `They overwrite each other: the balance is ${balance}, and should be 0.`)
}

export async function withLock({ accounts, urls }) {
  title('2  With the lock: the same again')
  await accounts.setBalance('anna', 100)
  const done = await withdrawAtOnce(urls, 'with-lock', ['anna'], TEN_TIMES)
  const balance = await accounts.balanceOf('anna')

  draw(requestByRequest(done))
  expect(mostAtOnce(done) === 1, `The requests take turns: at most ${mostAtOnce(done)} at a time.`)
  expect(balance === 0, `Nothing is lost: the balance is ${balance}, and should be 0.`)
}

export async function manyUsers({ accounts, urls }) {
  title('3  With the lock: eight users who have 100 take out 25, four times each, all at once')
  const users = ['Anna', 'Bert', 'Cleo', 'Dana', 'Emil', 'Fay', 'Gus', 'Hana']
  await Promise.all(users.map((user) => accounts.setBalance(user, 100)))
  const done = await withdrawAtOnce(urls, 'with-lock', users, FOUR_TIMES)
  const balances = await Promise.all(users.map((user) => accounts.balanceOf(user)))
  const byUser = users.map((user) => done.filter((one) => one.user === user).sort(byBegin))

  draw(
    users.map((user, i) => ({ label: user, withdrawals: byUser[i], note: `${balances[i]} left` })),
  )
  say("  Here a line is a user. Where the pattern changes, the user's next request begins.")
  say(`  Work for ${workOf(done)} ms, done in ${timeOf(done)} ms.`, '')
  const most = Math.max(...byUser.map(mostAtOnce))
  const right = balances.filter((balance) => balance === 0).length
  expect(most === 1, `The requests of one user take turns: at most ${most} at a time.`)
  expect(mostAtOnce(done) > 1, `The users don't: up to ${mostAtOnce(done)} at the same time.`)
  expect(right === users.length, `Nothing is lost: ${right} of ${users.length} balances are right.`)
}

function draw(rows) {
  say(...timeline(rows), '')
}

function requestByRequest(withdrawals) {
  return withdrawals.sort(byBegin).map((one) => ({
    label: one.server,
    withdrawals: [one],
    note: `reads ${one.read}, writes ${one.wrote}`,
  }))
}

function byBegin(one, other) {
  return one.began - other.began
}
