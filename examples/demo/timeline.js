import { spanOf } from './measure.js'
import { style } from './screen.js'

const WIDTH = 56
const LABEL = 9

/** How each mark is coloured, where there are colours. */
const colours = { '░': 'gray', '█': 'green', '▓': 'cyan' }

/**
 * Draws withdrawals over time, a line for each row. Where a row has several, the marks alternate.
 *
 * @param {{ label: string, withdrawals: any[], note: string }[]} rows
 */
export function timeline(rows) {
  const { from, to } = spanOf(rows.flatMap((row) => row.withdrawals))
  const column = (time) => Math.round(((time - from) / Math.max(1, to - from)) * WIDTH)
  const lines = rows.map(({ label, withdrawals, note }) => {
    const cells = new Array(WIDTH).fill(' ')
    for (const { arrived, ended } of withdrawals) cells.fill('░', column(arrived), column(ended))
    withdrawals.forEach(({ began, ended }, i) => {
      cells.fill(i % 2 ? '▓' : '█', column(began), column(ended))
    })
    return `  ${label.padEnd(LABEL)}${painted(cells)}  ${note}`
  })
  return [...lines, axis(to - from)]
}

function painted(cells) {
  const runs = cells.join('').match(/(.)\1*/g) ?? []
  return runs.map((run) => (run[0] in colours ? style(colours[run[0]], run) : run)).join('')
}

function axis(duration) {
  const end = `${duration} ms`
  return style('gray', `  ${' '.repeat(LABEL)}0 ms${end.padStart(WIDTH - 4)}`)
}
