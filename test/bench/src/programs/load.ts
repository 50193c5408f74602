import autocannon from 'autocannon'
import { Samples } from '../samples.js'
import type { Program } from './program.js'

export interface LoadRun {
  /** Of the web server. */
  readonly port: number
  readonly connections: number
  /** How many users the requests are spread over. */
  readonly users: number
  /** In ms. */
  readonly duration: number
}

export interface LoadResult {
  /** In ms, lowest first. */
  readonly latencies: Float64Array
  readonly elapsed: number
}

/** How many different requests a connection goes through, again and again. */
const VARIETY = 500

/** Sends requests to a web server, each connection the next one as soon as it has its answer. */
export async function start(): Promise<Program> {
  return { steps: { run }, close: async () => {} }
}

async function run({ port, connections, users, duration }: LoadRun): Promise<LoadResult> {
  const latencies = new Samples()
  let refused = 0
  let clients = 0
  const began = performance.now()
  const { errors } = await new Promise<autocannon.Result>((resolve, reject) => {
    const options: autocannon.Options = {
      url: `http://127.0.0.1:${port}`,
      connections,
      duration: duration / 1000,
      sampleInt: Math.min(1000, duration),
      // Nobody is to be given up.
      timeout: 60,
      setupClient: (client) => client.setRequests(requestsOf(clients++, users)),
    }
    const load = autocannon(options, (error, result) => (error ? reject(error) : resolve(result)))
    load.on('response', (_client, status, _bytes, latency) => {
      latencies.add(latency)
      if (status !== 200) refused++
    })
  })
  const elapsed = performance.now() - began
  if (refused + errors > 0) {
    throw new Error(`${refused} requests were refused and ${errors} failed, of ${latencies.size}`)
  }
  return { latencies: latencies.take().sort(), elapsed }
}

/** Spread so that connections meet at one user about as often as by chance. */
function requestsOf(client: number, users: number): autocannon.Request[] {
  return Array.from({ length: VARIETY }, (_, turn) => {
    const user = Math.imul(client * VARIETY + turn + 1, 2_654_435_761) >>> 0
    return { method: 'POST', path: `/users/${user % users}` }
  })
}
