/** What is measured, and how it is shown. */
export interface Metric {
  readonly label: string
  /** Empty for what is a number of things. */
  readonly unit: string
  readonly better: 'more' | 'less'
}

const more = (label: string, unit = ''): Metric => ({ label, unit, better: 'more' })
const less = (label: string, unit = ''): Metric => ({ label, unit, better: 'less' })

export const metrics = {
  locks: more('locks', '/s'),
  p50: less('wait p50', 'ms'),
  p99: less('wait p99', 'ms'),
  longest: less('longest wait', 'ms'),
  fifo: less('p99 / perfect FIFO'),
  commands: less('commands / lock'),
  clientCpu: less('client CPU / lock', 'µs'),
  redisCpu: less('Redis CPU / lock', 'µs'),
  fairness: more('fairness'),
  requests: more('requests', '/s'),
  latency50: less('latency p50', 'ms'),
  latency99: less('latency p99', 'ms'),
  latencyMax: less('longest latency', 'ms'),
  requestCommands: less('commands / request'),
  serverCpu: less('server CPU / request', 'µs'),
  requestRedisCpu: less('Redis CPU / request', 'µs'),
  handOver50: less('hand-over p50', 'ms'),
  handOver99: less('hand-over p99', 'ms'),
  handOverPings: less('hand-over / PING'),
  ping50: less('PING p50', 'ms'),
  clientRise: less('client CPU / that of 1,000 keys'),
  redisRise: less('Redis CPU / that of 1,000 keys'),
  redisLeft: less('left in Redis', 'MB'),
  heapLeft: less('left in the heap', 'MB'),
  idleCommands: less('commands', '/s'),
  idleClientCpu: less('client CPU', 'ms/s'),
  idleRedisCpu: less('Redis CPU', 'ms/s'),
  redisPerLock: less('Redis / lock', 'B'),
  heapPerLock: less('heap / lock', 'B'),
} as const satisfies Record<string, Metric>

export type MetricName = keyof typeof metrics

/** What one round of one scenario gave for one contestant. */
export type Figures = Partial<Record<MetricName, number>>
