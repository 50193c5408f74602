import { once } from 'node:events'
import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import type { Redis } from 'ioredis'
import { until } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'

/** What connections say to begin with, and the tap itself. */
const ASIDE = ['echo', 'info', 'hello', 'client', 'select']

/** Listens to all that a server is told, but for what scripts do inside it. */
export class Tap {
  readonly #control: Redis
  readonly #commands: string[][] = []
  #markers = 0

  private constructor(control: Redis) {
    this.#control = control
  }

  /** @param control a client of the server, for the tap alone */
  static async open(control: Redis, port: number): Promise<Tap> {
    const tap = new Tap(control)
    // Not by way of a client: ioredis's fails when a command comes together with the first reply.
    const socket = connect(port, '127.0.0.1', () => socket.write('MONITOR\r\n'))
    atEnd(() => socket.destroy())
    const lines = createInterface(socket)
    await once(lines, 'line')
    lines.on('line', (line) => tap.#read(line))
    return tap
  }

  #read(line: string): void {
    const [, source, command] = line.match(/^\+[\d.]+ \[\d+ (\S+)\] (.*)$/) ?? []
    if (command === undefined || source === 'lua') return
    const args = [...command.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, arg]) => arg as string)
    this.#commands.push([args[0]?.toLowerCase() ?? '', ...args.slice(1)])
  }

  /** The commands since the last time, each with its arguments. */
  async take(): Promise<string[][]> {
    const marker = `marker ${++this.#markers}`
    const isMarker = (args: string[]) => args[1] === marker
    await this.#control.echo(marker)
    await until(() => this.#commands.some(isMarker))
    const taken = this.#commands.splice(0, this.#commands.findIndex(isMarker) + 1)
    return taken.filter(([name = '']) => !ASIDE.includes(name))
  }

  /** The same, by their names alone. */
  async names(): Promise<string[]> {
    return (await this.take()).map(([name]) => name as string)
  }

  /** Resolves when the server has been told a command with this name since the last time. */
  told(name: string): Promise<void> {
    return until(() => this.#commands.some((args) => args[0] === name))
  }
}
