import type { Redis } from 'ioredis'
import { atEnd } from '../support/cleanup.js'

/** Listens to all that a server is told, but for what scripts do inside it. */
export class Tap {
  readonly #control: Redis
  readonly #commands: string[][] = []
  #markers = 0

  private constructor(control: Redis) {
    this.#control = control
  }

  static async open(control: Redis): Promise<Tap> {
    const tap = new Tap(control)
    const monitor = await control.monitor()
    atEnd(() => monitor.disconnect())
    monitor.on('monitor', (_time: string, args: string[], source: string) => {
      if (source !== 'lua') tap.#commands.push(args)
    })
    await tap.take()
    return tap
  }

  /** The commands since the last time, in lower case, without what connections say to begin with. */
  async take(): Promise<string[][]> {
    const marker = `marker ${++this.#markers}`
    await this.#control.echo(marker)
    const isMarker = (args: string[]) => args[1] === marker
    while (!this.#commands.some(isMarker)) await new Promise((resolve) => setTimeout(resolve, 2))
    const taken = this.#commands.splice(0, this.#commands.findIndex(isMarker) + 1)
    return taken
      .map(([name = '', ...args]) => [name.toLowerCase(), ...args])
      .filter(([name]) => !['echo', 'info', 'hello', 'client', 'select'].includes(name as string))
  }

  /** The same, by their names alone. */
  async names(): Promise<string[]> {
    return (await this.take()).map(([name]) => name as string)
  }

  /** Resolves when the server is told a command with this name. */
  async told(name: string): Promise<void> {
    while (!this.#commands.some((args) => args[0]?.toLowerCase() === name)) {
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
  }
}
