// Started by `Child`: runs one program, one step after the other.

import type { Answer, Call, Program, Task } from './programs/program.js'

// The benchmark ended early.
process.on('disconnect', () => process.exit())

const task = JSON.parse(process.argv[2] ?? '') as Task
const { start } = (await import(
  new URL(`./programs/${task.program}.js`, import.meta.url).href
)) as {
  start(task: Task): Promise<Program>
}
const program = await start(task)

process.on('message', (call: Call) => {
  void answer(call).then(send)
})
send({ result: undefined })

function send(said: Answer): void {
  // Nobody is there to be told if it fails.
  process.send?.(said, undefined, undefined, () => {})
}

async function answer({ step, input }: Call): Promise<Answer> {
  try {
    if (step === 'end') {
      await program.close()
      setImmediate(() => process.exit())
      return { result: undefined }
    }
    const run = program.steps[step]
    if (!run) throw new Error(`The program ${task.program} has no step ${step}`)
    return { result: await run(input as never) }
  } catch (error) {
    return { failure: error instanceof Error ? (error.stack ?? error.message) : String(error) }
  }
}
