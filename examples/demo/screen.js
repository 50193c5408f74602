import { styleText } from 'node:util'

// False where the output is no terminal, and where NO_COLOR is set.
const colourful = Boolean(process.stdout.isTTY && process.stdout.hasColors())

/** @param {any} format */
export function style(format, text) {
  return colourful ? styleText(format, text) : text
}

export function say(...lines) {
  for (const line of lines) console.log(line)
}

export function title(text) {
  say('', style('bold', text), '')
}

let met = 0
let missed = 0

/** Says what is claimed with the figures that were measured, and remembers whether it holds. */
export function expect(holds, claim) {
  if (holds) met++
  else missed++
  say(`  ${holds ? style('green', '✓') : style('red', '✗')} ${claim}`)
}

/** How it went, also as the exit code of the process. */
export function conclude() {
  if (missed > 0) process.exitCode = 1
  const all = met + missed
  say('', missed === 0 ? `All ${all} checks passed.` : `${missed} of ${all} checks failed.`)
}
