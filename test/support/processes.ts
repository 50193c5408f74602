import { type ChildProcess, fork } from 'node:child_process'
import { atEnd, atExit } from './cleanup.js'

const MESSAGE_TIMEOUT = 15_000

export interface Message {
  readonly type: string
  readonly [name: string]: unknown
}

type Exit = number | NodeJS.Signals

interface Expectation {
  readonly type: string | undefined
  resolve(message: Message): void
  reject(error: Error): void
}

/**
 * Starts a TypeScript file as a child process, with the flags of this one, so that it loads the
 * packages from source as well. It is killed at the end of the test.
 */
export function forkFixture(
  file: URL | string,
  args: readonly string[] = [],
  env: NodeJS.ProcessEnv = {},
): FixtureProcess {
  const fixture = new FixtureProcess(
    fork(file, args, {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    }),
    String(file),
  )
  atEnd(() => {
    fixture.kill('SIGKILL')
    return fixture.exited
  })
  return fixture
}

/** A child process that talks in messages: objects with a `type`, as JSON. */
export class FixtureProcess {
  /** The exit code, or the name of the signal that ended it. */
  readonly exited: Promise<Exit>
  readonly pid: number
  readonly #child: ChildProcess
  readonly #name: string
  readonly #unread: Message[] = []
  readonly #expected: Expectation[] = []
  #exit: Exit | undefined

  constructor(child: ChildProcess, name: string) {
    if (child.pid === undefined) throw new Error(`${name} could not be started`)
    this.pid = child.pid
    this.#child = child
    this.#name = name
    child.on('message', (message) => this.#deliver(message as Message))
    const forget = atExit(() => child.kill('SIGKILL'))
    this.exited = new Promise((resolve) => {
      // 'close' and not 'exit': by then every message it sent has arrived.
      child.once('close', (code, signal) => {
        forget()
        this.#exit = code ?? signal ?? 'SIGKILL'
        for (const { type, reject } of this.#expected.splice(0)) reject(this.#missing(type))
        resolve(this.#exit)
      })
    })
  }

  /** The next message, of this type if one is given, unread or still to come within `timeout` ms. */
  next(type?: string, timeout = MESSAGE_TIMEOUT): Promise<Message> {
    const index = this.#unread.findIndex((message) => type === undefined || message.type === type)
    const unread = this.#unread[index]
    if (unread) {
      this.#unread.splice(index, 1)
      return Promise.resolve(unread)
    }
    if (this.#exit !== undefined) return Promise.reject(this.#missing(type))

    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#expected.splice(this.#expected.indexOf(expectation), 1)
        reject(this.#missing(type, timeout))
      }, timeout)
      const expectation: Expectation = {
        type,
        resolve: (message) => {
          clearTimeout(timer)
          resolve(message)
        },
        reject: (error) => {
          clearTimeout(timer)
          reject(error)
        },
      }
      this.#expected.push(expectation)
    })
  }

  send(message: Message): void {
    this.#child.send(message)
  }

  kill(signal: NodeJS.Signals = 'SIGTERM'): void {
    this.#child.kill(signal)
  }

  #deliver(message: Message): void {
    const index = this.#expected.findIndex(
      ({ type }) => type === undefined || type === message.type,
    )
    const expectation = this.#expected[index]
    if (!expectation) {
      this.#unread.push(message)
      return
    }
    this.#expected.splice(index, 1)
    expectation.resolve(message)
  }

  #missing(type: string | undefined, timeout = 0): Error {
    const state = this.#exit === undefined ? `in ${timeout} ms` : `: it ended (${this.#exit})`
    const unread = this.#unread.map((message) => message.type).join(', ') || 'none'
    return new Error(
      `No message '${type ?? 'any'}' from ${this.#name} ${state}; unread messages: ${unread}`,
    )
  }
}
