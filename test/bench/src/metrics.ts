/** What is measured, and how it is shown. */
export interface Metric {
  readonly label: string
  readonly unit: string
  readonly better: 'more' | 'less'
}

export const metrics = {
  locks: { label: 'locks/s', unit: '/s', better: 'more' },
  p50: { label: 'wait p50', unit: 'ms', better: 'less' },
  p99: { label: 'wait p99', unit: 'ms', better: 'less' },
  longest: { label: 'longest wait', unit: 'ms', better: 'less' },
  fifo: { label: 'p99 / perfect FIFO', unit: '×', better: 'less' },
  commands: { label: 'commands/lock', unit: '', better: 'less' },
  clientCpu: { label: 'client CPU/lock', unit: 'µs', better: 'less' },
  redisCpu: { label: 'Redis CPU/lock', unit: 'µs', better: 'less' },
  fairness: { label: 'fairness (Jain)', unit: '', better: 'more' },
} as const satisfies Record<string, Metric>

export type MetricName = keyof typeof metrics

/** What one round of one scenario gave for one contestant. */
export type Figures = Partial<Record<MetricName, number>>
