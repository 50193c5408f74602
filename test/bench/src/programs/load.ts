import { setTimeout as sleep } from 'node:timers/promises'
import autocannon from 'autocannon'
import { Samples } from '../samples.js'
import type { Program } from './program.js'

export interface Load {
  /** Of the web server. */
  readonly port: number
  readonly connections: number
  /** How many users the requests are spread over. */
  readonly users: number
}

export interface LoadResult {
  /** In ms, lowest first. */
  readonly latencies: Float64Array
  readonly elapsed: number
}

/** How many different requests a connection goes through, again and again. */
const VARIETY = 500

/** More seconds than any run takes. */
const FOREVER = 3600

/**
 * Sends requests to a web server, each connection the next one as soon as it has its answer. It goes on
 * until it is ended: making tens of thousands of requests takes longer than what is measured.
 */
export async function start(): Promise<Program> {
  let load: autocannon.Instance | undefined
  let latencies = new Samples()
  let refused = 0
  return {
    steps: { begin, collect },
    close: async () => void load?.stop(),
  }

  /** Resolves when every connection has had an answer. */
  async function begin({ port, connections, users }: Load): Promise<void> {
    let clients = 0
    const answered = new Set<autocannon.Client>()
    await new Promise<void>((resolve) => {
      load = autocannon(
        {
          url: `http://127.0.0.1:${port}`,
          connections,
          duration: FOREVER,
          // Nobody is to be given up, not even while this process is paused.
          timeout: FOREVER,
          setupClient: (client) => client.setRequests(requestsOf(clients++, users)),
        },
        () => {},
      )
      load.on('reqError', () => refused++)
      load.on('response', (client, status, _bytes, latency) => {
        latencies.add(latency)
        if (status !== 200) refused++
        if (answered.size < connections && answered.add(client).size === connections) resolve()
      })
    })
  }

  /** What was answered within the next `duration`, in ms. */
  async function collect(duration: number): Promise<LoadResult> {
    latencies = new Samples()
    const began = performance.now()
    await sleep(duration)
    const elapsed = performance.now() - began
    const taken = latencies.take().sort()
    if (refused > 0) throw new Error(`${refused} requests were refused or failed`)
    return { latencies: taken, elapsed }
  }
}

/** Spread so that connections meet at one user about as often as by chance. */
function requestsOf(client: number, users: number): autocannon.Request[] {
  return Array.from({ length: VARIETY }, (_, turn) => {
    const user = Math.imul(client * VARIETY + turn + 1, 2_654_435_761) >>> 0
    return { method: 'POST', path: `/users/${user % users}` }
  })
}
