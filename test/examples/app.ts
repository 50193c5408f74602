import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { atEnd, atExit } from '../support/cleanup.js'
import { sharedRedis } from '../support/redis.js'

const START_TIMEOUT = 10_000

/** Where an example keeps its locks and its data. */
export interface Place {
  readonly name: string
  env(): NodeJS.ProcessEnv
}

export const embedded: Place = { name: 'in the process', env: () => ({}) }
export const onRedis: Place = {
  name: 'on Redis',
  env: () => ({ REDIS_URL: sharedRedis().url }),
}

/** A program in the folder of an example, started as a user does: by a plain Node.js. */
export class App {
  /** How it ended: the exit code, or the signal. */
  readonly exited: Promise<number | NodeJS.Signals>
  /** All that it has printed. */
  output = ''
  readonly #child: ChildProcess

  constructor(folder: string, file: string, env: NodeJS.ProcessEnv) {
    // Neither the flags nor the Redis of this process, unless they were asked for.
    const { NODE_OPTIONS: _, REDIS_URL: __, ...plain } = process.env
    const child = spawn(process.execPath, [file], {
      cwd: folder,
      env: { ...plain, PORT: '0', FASTIFY_PORT: '0', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        this.output += text
      })
    }
    const forget = atExit(() => child.kill('SIGKILL'))
    this.exited = once(child, 'close').then(([code, signal]) => {
      forget()
      return code ?? signal
    })
    atEnd(() => {
      child.kill('SIGKILL')
      return this.exited
    })
    this.#child = child
  }

  /** The addresses that it listens on, as soon as it has told so many. */
  urls(count: number): Promise<string[]> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        const told = this.output.matchAll(/listening on (http:\S+)\n/g)
        // Not by name: looking it up would change the order of requests.
        const urls = [...told].map(([, url]) => `${url}`.replace('localhost', '127.0.0.1'))
        if (urls.length >= count) done(() => resolve(urls))
      }
      const fail = (): void =>
        done(() => reject(new Error(`It does not listen; its output:\n${this.output}`)))
      const done = (settle: () => void): void => {
        clearTimeout(timer)
        this.#child.stdout?.off('data', look)
        this.#child.off('close', fail)
        settle()
      }
      const timer = setTimeout(fail, START_TIMEOUT)
      this.#child.stdout?.on('data', look)
      this.#child.on('close', fail)
      look()
    })
  }

  async url(): Promise<string> {
    const [url = ''] = await this.urls(1)
    return url
  }

  /** Asks it to end, as a process manager does. */
  stop(): Promise<number | NodeJS.Signals> {
    this.#child.kill('SIGTERM')
    return this.exited
  }
}

export const folderOf = (example: string): string =>
  fileURLToPath(new URL(`../../examples/${example}`, import.meta.url))

export function startExample(example: string, place: Place): App {
  return new App(folderOf(example), 'server.js', place.env())
}
