import { PassThrough } from 'node:stream'
import { openLineSink } from '../../connectors/sinks/stdout.ts'
import { type SinkUnderTest, sinkContract } from './sink-contract.ts'

interface Line {
  readonly id: string
  readonly replayed?: true
  readonly key: string
  readonly type: string
  readonly value?: { readonly text: string }
}

const start = async (): Promise<SinkUnderTest> => {
  const stream = new PassThrough({ encoding: 'utf8' })
  let written = ''
  stream.on('data', (text: string) => {
    written += text
  })
  const lines = (): Line[] =>
    written
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Line)
  return {
    open: async () => openLineSink(stream),
    topic: 'lines',
    types: { write: 'Changed', remove: 'Erased' },
    payload: (_, text) => ({ text }),
    // what a reader of the lines would hold: the last line of a key stands
    async rows() {
      const rows = new Map<string, string>()
      for (const { key, type, value } of lines()) {
        if (type === 'Erased') rows.delete(key)
        else rows.set(key, value?.text ?? '')
      }
      return rows
    },
    replayed: async () => lines().flatMap(({ id, replayed }) => (replayed === true ? [id] : [])),
    async remove() {
      stream.destroy()
    },
  }
}

sinkContract('stdout', start, { effect: 'at-least-once', checkpoints: false, redeliver: true })
