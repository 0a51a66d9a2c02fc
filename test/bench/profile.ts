import { readFile } from 'node:fs/promises'
import { relative } from 'node:path'
import { fileURLToPath } from 'node:url'

interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number }
  }[]
  readonly samples: readonly number[]
  /** µs from the sample before */
  readonly timeDeltas: readonly number[]
}

/** The functions that a V8 CPU profile (`--cpu-prof`) saw most of, by their own time, as lines for people. */
export async function topOfProfile(path: string, count = 15): Promise<readonly string[]> {
  const { nodes, samples, timeDeltas } = JSON.parse(await readFile(path, 'utf8')) as CpuProfile
  const places = new Map(nodes.map(({ id, callFrame }) => [id, place(callFrame)]))
  const spent = new Map<string, number>()
  let busy = 0
  for (const [index, id] of samples.entries()) {
    const where = places.get(id) ?? ''
    const time = timeDeltas[index] ?? 0
    spent.set(where, (spent.get(where) ?? 0) + time)
    if (where !== '(idle)') busy += time
  }
  const top = [...spent].filter(([where]) => where !== '(idle)').sort((a, b) => b[1] - a[1])
  return top.slice(0, count).map(([where, time]) => `${((time / busy) * 100).toFixed(1).padStart(5)} %  ${where}`)
}

function place({ functionName, url, lineNumber }: CpuProfile['nodes'][number]['callFrame']): string {
  const file = url.startsWith('file:') ? relative(process.cwd(), fileURLToPath(url)) : url
  return file === '' ? functionName || '(anonymous)' : `${functionName || '(anonymous)'} ${file}:${lineNumber + 1}`
}
