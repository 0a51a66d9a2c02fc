import { PassThrough } from 'node:stream'
import { openLineSink } from '../../connectors/sinks/stdout.ts'
import { type SinkUnderTest, sinkContract } from './sink-contract.ts'

interface Line {
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
  return {
    open: async () => openLineSink(stream),
    topic: 'lines',
    types: { write: 'Changed', remove: 'Erased' },
    payload: (_, text) => ({ text }),
    unfit: null,
    refusing: null,
    // what a reader of the lines would hold: the last line of a key stands
    async rows() {
      const rows = new Map<string, string>()
      for (const line of written.split('\n').filter((line) => line !== '')) {
        const { key, type, value } = JSON.parse(line) as Line
        if (type === 'Erased') rows.delete(key)
        else rows.set(key, value?.text ?? '')
      }
      return rows
    },
    async remove() {
      stream.destroy()
    },
  }
}

sinkContract('stdout', start, { checkpoints: false, parking: false })
