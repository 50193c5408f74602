import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { extname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { atExit } from '../../support/cleanup.js'
import type { Answer, Call, Task } from './programs/program.js'

/** The longest that a step may take, in ms: nothing may keep the benchmark from ending. */
const STEP_TIMEOUT = 120_000

/** This file's own extension: the program runs from its sources, too. */
const file = fileURLToPath(new URL(`./child${extname(import.meta.url)}`, import.meta.url))

/** A program in a process of its own. */
export class Process {
  readonly #child: ChildProcess
  readonly #name: string

  private constructor(task: Task) {
    this.#name = `${task.program} of ${task.contestant}`
    this.#child = fork(file, [JSON.stringify(task)], {
      // Typed arrays travel as they are.
      serialization: 'advanced',
      env: { ...process.env, NODE_ENV: 'production' },
      execArgv: [...process.execArgv, '--expose-gc'],
    })
    // One that is paused does not hear that the benchmark has ended.
    this.#child.once(
      'exit',
      atExit(() => this.#child.kill('SIGKILL')),
    )
  }

  /** Resolves when it is ready for its first step. */
  static async start(task: Task): Promise<Process> {
    const started = new Process(task)
    await started.#answer()
    return started
  }

  static startAll(count: number, task: Task): Promise<Process[]> {
    return Promise.all(Array.from({ length: count }, () => Process.start(task)))
  }

  async call<Result>(step: string, input?: unknown): Promise<Result> {
    this.#child.send({ step, input } satisfies Call)
    return (await this.#answer()) as Result
  }

  /** Stops it where it is, until it is resumed. */
  pause(): void {
    this.#child.kill('SIGSTOP')
  }

  resume(): void {
    this.#child.kill('SIGCONT')
  }

  async end(): Promise<void> {
    const closed = once(this.#child, 'close')
    await this.call('end')
    await closed
  }

  #answer(): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const settle = (settled: () => void) => {
        clearTimeout(timer)
        this.#child.off('message', read)
        this.#child.off('exit', ended)
        settled()
      }
      const fail = (what: string) => {
        this.#child.kill('SIGKILL')
        settle(() => reject(new Error(`${this.#name}: ${what}`)))
      }
      const read = (answer: Answer) => {
        if ('failure' in answer) fail(answer.failure)
        else settle(() => resolve(answer.result))
      }
      const ended = (code: number | null) => fail(`ended with ${code}`)
      const timer = setTimeout(fail, STEP_TIMEOUT, `no answer within ${STEP_TIMEOUT} ms`)
      this.#child.on('message', read)
      this.#child.on('exit', ended)
    })
  }
}
