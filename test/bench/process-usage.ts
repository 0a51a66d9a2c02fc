import { readFileSync } from 'node:fs'

/** What a process has used, as Linux counts it. */
export interface ProcessUsage {
  /** user and system time of all its threads, seconds, in steps of 0.01 */
  readonly cpuSeconds: number
  /** the most physical memory it ever held */
  readonly peakRssBytes: number
}

/** @throws where there is no /proc (elsewhere than Linux), or no such process */
export function processUsage(pid: number): ProcessUsage {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  // the command's name may hold anything, brackets and blanks too
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const ticks = Number(fields[11]) + Number(fields[12])
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return { cpuSeconds: ticks / 100, peakRssBytes: Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024 }
}
