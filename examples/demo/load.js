/** Opens connections, so that what is measured later is not how long that takes. */
export async function warmUp(urls, count) {
  await Promise.all(urls.flatMap((url) => Array.from({ length: count }, () => ask(url))))
}

/** Sends all withdrawals at once, to the servers in turn. Gives what each of them was and did. */
export async function withdrawAtOnce(urls, route, users, { times, amount }) {
  const requests = users.flatMap((user) => Array.from({ length: times }, () => user))
  return Promise.all(
    requests.map(async (user, i) => {
      const url = `${urls[i % urls.length]}/${route}/${user}/withdraw/${amount}`
      return { user, ...(await ask(url, 'POST')) }
    }),
  )
}

/** @returns {Promise<any>} */
async function ask(url, method = 'GET') {
  const response = await fetch(url, { method })
  if (!response.ok) {
    throw new Error(`${method} ${url} was answered ${response.status}: ${await response.text()}`)
  }
  return response.json()
}
