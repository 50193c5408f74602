import { startCluster } from '../../../support/cluster.js'
import { startRedis } from '../../../support/redis.js'
import { connect } from '../contestants/connection.js'
import type { Contestant } from '../contestants/contestant.js'
import { redismutex, redismutexOnCluster } from '../contestants/redismutex.js'
import { Process } from '../process.js'
import type { Loops, LoopsResult, LoopsRun } from '../programs/loops.js'
import { callsBetween, type RedisUsage, redisUsage } from '../redis-usage.js'
import type { Pace } from '../run.js'

/** What one lock costs the masters, all of them together. */
export interface Cost {
  /** Locks per second, on this machine, with all processes on it. */
  readonly locks: number
  /** CPU time, in µs. */
  readonly cpu: number
  readonly commands: number
  /** Bytes that clients send, and get. */
  readonly received: number
  readonly sent: number
}

/** What one PUBLISH costs the nodes of a Cluster on its way to all others, in µs of CPU. */
export interface Fanout {
  /** The node that is told, for each other node. */
  readonly send: number
  /** Each other node. */
  readonly receive: number
}

/** Nobody else wants the lock; or each release hands it over to another process. */
export interface Costs {
  readonly free: Cost
  readonly handedOver: Cost
}

export interface Reach {
  readonly single: Costs
  readonly cluster: Costs
  readonly fanout: Fanout
}

const loads: Readonly<Record<keyof Costs, Loops & { processes: number }>> = {
  free: { processes: 1, loops: 64, keys: 100, hold: 0 },
  handedOver: { processes: 4, loops: 16, keys: 'one each process wants', hold: 0 },
}

const MASTERS = 3
const MESSAGES = 20_000

export async function measureReach(pace: Pace, told: (what: string) => void): Promise<Reach> {
  told('one server')
  const server = await startRedis()
  const single = await costs(redismutex, [server.port], pace).finally(() => server.stop())
  told('a Cluster of three masters')
  const deployment = await startCluster()
  try {
    const ports = deployment.nodes.map(({ port }) => port)
    const cluster = await costs(redismutexOnCluster, ports.slice(0, MASTERS), pace)
    return { single, cluster, fanout: await fanout(ports, pace.full ? MESSAGES : MESSAGES / 20) }
  } finally {
    await deployment.stop()
  }
}

async function costs(
  contestant: Contestant,
  masters: readonly number[],
  pace: Pace,
): Promise<Costs> {
  return {
    free: await cost(contestant, masters, loads.free, pace),
    handedOver: await cost(contestant, masters, loads.handedOver, pace),
  }
}

async function cost(
  contestant: Contestant,
  masters: readonly number[],
  { processes, ...loops }: (typeof loads)[keyof Costs],
  { duration, warmUp }: Pace,
): Promise<Cost> {
  const [port] = masters as [number]
  const task = { program: 'loops', contestant: contestant.name, port }
  const crew = await Process.startAll(processes, task)
  const run = (duration: number) => {
    const input: LoopsRun = { ...loops, duration }
    return Promise.all(crew.map((member) => member.call<LoopsResult>('run', input)))
  }
  await run(warmUp)
  const { result, before, after } = await watched(masters, () => run(duration))
  await Promise.all(crew.map((member) => member.end()))

  const count = result.reduce((sum, { waits }) => sum + waits.length, 0)
  const inTime = result.flatMap(({ shares }) => shares).reduce((sum, share) => sum + share, 0)
  const spent = (of: (before: RedisUsage, after: RedisUsage) => number) =>
    before.reduce((sum, usage, node) => sum + of(usage, after[node] as RedisUsage), 0) / count
  return {
    locks: (inTime / duration) * 1000,
    cpu: spent((a, b) => b.cpu - a.cpu) * 1000,
    commands: spent((a, b) => callsBetween(a, b, contestant.sends)),
    received: spent((a, b) => b.received - a.received),
    sent: spent((a, b) => b.sent - a.sent),
  }
}

/** What messages as long as our longest cost that nobody has subscribed to. */
async function fanout(ports: readonly number[], messages: number): Promise<Fanout> {
  const redis = await connect(ports[0] as number)
  const channel = `redismutex:inbox:${'x'.repeat(22)}`
  const message = `grant|${'9'.repeat(16)}|${'9'.repeat(16)}|1|${'9'.repeat(9)}|${'9'.repeat(6)}`
  const publish = async () => {
    const pipeline = redis.pipeline()
    for (let sent = 0; sent < messages; sent++) pipeline.publish(channel, message)
    await pipeline.exec()
    // The others have it a moment later.
    await new Promise((resolve) => setTimeout(resolve, 300))
  }
  const idle = async () => new Promise((resolve) => setTimeout(resolve, 1000))
  const spent = async (work: () => Promise<unknown>) => {
    const began = performance.now()
    const { before, after } = await watched(ports, work)
    const elapsed = performance.now() - began
    return { elapsed, cpu: before.map((usage, node) => (after[node]?.cpu ?? 0) - usage.cpu) }
  }
  await publish()
  const rest = await spent(idle)
  const work = await spent(publish)
  redis.disconnect()
  const [sender = 0, ...others] = work.cpu.map((cpu, node) => {
    const resting = ((rest.cpu[node] ?? 0) / rest.elapsed) * work.elapsed
    return (Math.max(0, cpu - resting) / messages) * 1000
  })
  const receive = others.reduce((sum, cpu) => sum + cpu, 0) / others.length
  return { send: sender / others.length, receive }
}

/** What all these servers have done and have, before and after. */
async function watched<T>(ports: readonly number[], work: () => Promise<T>) {
  const clients = await Promise.all(ports.map(connect))
  try {
    const before = await Promise.all(clients.map(redisUsage))
    const result = await work()
    return { result, before, after: await Promise.all(clients.map(redisUsage)) }
  } finally {
    for (const client of clients) client.disconnect()
  }
}
