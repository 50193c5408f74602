// What we use of it: its own types are not where its package says that they are.

declare module 'redlock' {
  export interface Settings {
    readonly retryCount: number
    readonly retryDelay: number
    readonly retryJitter: number
  }

  export interface Lock {
    release(): Promise<unknown>
  }

  export default class Redlock {
    constructor(clients: Iterable<object>, settings?: Partial<Settings>)
    acquire(resources: string[], duration: number, settings?: Partial<Settings>): Promise<Lock>
  }
}
