import { expect, test } from 'vitest'
import { liveLine } from '../../../src/cli/demo/live-line.ts'
import type { Terminal } from '../../../src/cli/terminal.ts'

function terminal(interactive: boolean): { out: Terminal; printed: string[]; drawn: string[] } {
  const printed: string[] = []
  const drawn: string[] = []
  const out: Terminal = {
    interactive,
    print: (line = '') => void printed.push(line),
    redraw: (line) => void drawn.push(line),
    style: (_, text) => text,
  }
  return { out, printed, drawn }
}

test('on a terminal the line is redrawn, and stays when it ends', () => {
  const { out, printed, drawn } = terminal(true)
  let now = 0
  const line = liveLine(out, 1_000, () => now)
  now = 2_000
  line.show({ written: 500, relayed: 400, applied: 250, lag: 12.4 })
  expect(drawn).toEqual(['  ██████▒▒▒▒▒▒░░░░░░░░░░░░  written   500  relayed   400  applied   250  lag 12 ms     125/s'])
  line.show({ written: 1_000, relayed: 1_000, applied: 1_000, lag: 0 })
  line.end()
  expect(printed).toEqual(['  ████████████████████████  written 1,000  relayed 1,000  applied 1,000  lag 0 ms      500/s'])
})

test('elsewhere a plain line is said once a second', () => {
  const { out, printed, drawn } = terminal(false)
  let now = 0
  const line = liveLine(out, 10, () => now)
  for (now = 0; now < 3_500; now += 100) line.show({ written: 1, relayed: 1, applied: 1, lag: 0 })
  expect(printed).toHaveLength(3)
  expect(drawn).toEqual([])
})
