import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { accessSync, constants, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { atExit } from './cleanup.js'
import { freePort } from './ports.js'

const START_TIMEOUT = 10_000

/** Where the address of the run's own server stands, for child processes too. */
export const SHARED_REDIS = 'REDISMUTEX_TEST_REDIS'

export interface RedisOptions {
  /** More arguments for redis-server, after ours. */
  args?: readonly string[]
  /** The text of its configuration file, which it may rewrite: Sentinel needs one. */
  config?: string
  /** Default: a free one. */
  port?: number
}

export interface RedisServer {
  readonly port: number
  readonly url: string
  readonly pid: number
  /** Ends it at once and removes its directory. */
  stop(): Promise<void>
  /** Sends a signal, SIGKILL by default, and waits until the process is gone. Its directory stays. */
  kill(signal?: NodeJS.Signals): Promise<void>
  /** Freezes the process: connections stay open, nothing is answered. */
  pause(): void
  resume(): void
  /** Starts it again on the same port, killing it first if it runs. */
  restart(): Promise<void>
  /** What it has written down so far, through all its restarts. */
  log(): string
}

export interface Address {
  readonly host: string
  readonly port: number
  readonly url: string
}

/** The redis-server to run: `REDIS_SERVER`, else the first one in `PATH`. */
export function findRedisServer(): string {
  const named = process.env.REDIS_SERVER
  if (named) return named
  for (const directory of (process.env.PATH ?? '').split(delimiter)) {
    const file = join(directory, 'redis-server')
    try {
      accessSync(file, constants.X_OK)
      return file
    } catch {}
  }
  throw new Error('No redis-server found: install Redis, or name one in REDIS_SERVER')
}

/** Starts a Redis of its own on the loopback interface, which keeps nothing. */
export async function startRedis({
  args = [],
  config,
  port,
}: RedisOptions = {}): Promise<RedisServer> {
  for (let attempt = 1; ; attempt++) {
    const server = new Server(port ?? (await freePort()), args, config)
    try {
      await server.start()
      return server
    } catch (error) {
      await server.stop()
      if (!(error instanceof PortTaken) || port !== undefined || attempt === 10) throw error
    }
  }
}

/** The server that all tests of a run share: keep to keys from `freshKey` or `freshPrefix`. */
export function sharedRedis(): Address {
  const url = process.env[SHARED_REDIS]
  if (!url) throw new Error(`${SHARED_REDIS} is not set: the run's own Redis was not started`)
  const { hostname, port } = new URL(url)
  return { host: hostname, port: Number(port), url }
}

/** A key that no other test, process or run has used. */
export function freshKey(name = 'key'): string {
  return `test:${randomUUID()}:${name}`
}

/** A key prefix that no other test, process or run has used. */
export function freshPrefix(): string {
  return `test:${randomUUID()}:`
}

class PortTaken extends Error {}

class Server implements RedisServer {
  readonly port: number
  readonly url: string
  readonly #args: readonly string[]
  /** Its configuration file, which has to come first, if it has one. */
  readonly #config: readonly string[] = []
  readonly #directory = mkdtempSync(join(tmpdir(), 'redismutex-'))
  readonly #log = join(this.#directory, 'redis.log')
  readonly #forgetDirectory = atExit(() => this.#remove())
  #process: ChildProcess | undefined
  #gone: Promise<void> = Promise.resolve()

  constructor(port: number, args: readonly string[], config?: string) {
    this.port = port
    this.url = `redis://127.0.0.1:${port}`
    this.#args = args
    if (config !== undefined) {
      const file = join(this.#directory, 'redis.conf')
      writeFileSync(file, config)
      this.#config = [file]
    }
  }

  get pid(): number {
    const pid = this.#process?.pid
    if (pid === undefined) throw new Error(`The Redis of port ${this.port} does not run`)
    return pid
  }

  async start(): Promise<void> {
    const child = spawn(
      findRedisServer(),
      [
        ...this.#config,
        ...['--port', `${this.port}`, '--bind', '127.0.0.1'],
        ...['--save', '', '--appendonly', 'no'],
        ...['--dir', this.#directory, '--logfile', this.#log],
        ...this.#args,
      ],
      { stdio: 'ignore' },
    )
    const forget = atExit(() => child.kill('SIGKILL'))
    let failure: Error | undefined
    this.#gone = new Promise<void>((resolve) => {
      child.once('error', (error) => {
        failure = error
        resolve()
      })
      child.once('exit', () => resolve())
    }).then(() => {
      forget()
      if (this.#process === child) this.#process = undefined
    })
    this.#process = child

    const deadline = performance.now() + START_TIMEOUT
    while (!(await isServedBy(child.pid, this.port))) {
      if (failure) throw failure
      if (this.#process !== child) {
        const reason = this.log()
        if (/address already in use/i.test(reason)) throw new PortTaken(reason)
        throw new Error(`redis-server ended before it answered:\n${reason}`)
      }
      if (performance.now() > deadline) {
        await this.kill()
        throw new Error(`redis-server did not answer in ${START_TIMEOUT} ms:\n${this.log()}`)
      }
      await sleep(5)
    }
  }

  async stop(): Promise<void> {
    await this.kill()
    this.#remove()
    this.#forgetDirectory()
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    this.#process?.kill(signal)
    await this.#gone
  }

  pause(): void {
    process.kill(this.pid, 'SIGSTOP')
  }

  resume(): void {
    process.kill(this.pid, 'SIGCONT')
  }

  async restart(): Promise<void> {
    await this.kill()
    await this.start()
  }

  log(): string {
    try {
      return readFileSync(this.#log, 'utf8').trim()
    } catch {
      return '(no log)'
    }
  }

  #remove(): void {
    rmSync(this.#directory, { recursive: true, force: true, maxRetries: 3 })
  }
}

/** Whether the process itself answers on the port, and not another server that took it. */
function isServedBy(pid: number | undefined, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    let answer = ''
    const socket = connect(port, '127.0.0.1', () => socket.write('PING\r\nINFO server\r\n'))
    socket.setTimeout(1000, () => socket.destroy())
    socket.on('data', (data) => {
      answer += data
      const served = answer.match(/process_id:(\d+)\r/)
      if (served || /^-(?!LOADING)/m.test(answer)) socket.destroy()
    })
    socket.on('error', () => {})
    socket.on('close', () => {
      const served = answer.match(/process_id:(\d+)\r/)
      // A server with a password tells nothing about itself; that it answers must do.
      resolve(served ? Number(served[1]) === pid : answer.startsWith('-NOAUTH'))
    })
  })
}
