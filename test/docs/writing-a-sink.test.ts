import { mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { pathToFileURL } from 'node:url'
import { afterAll, expect, test } from 'vitest'
import type { SinkConnector } from '../../src/connector.ts'
import { millrace, type Program } from '../cli/millrace.ts'
import { silent } from '../connectors/postgres-fixture.ts'
import { sinkContract } from '../connectors/sink-contract.ts'
import { createDatabase } from '../support/database.ts'
import { eventually } from '../support/eventually.ts'

/** The sink that docs/writing-a-sink.md shows, taken from the page as it stands there: a user copies it. */

const root = join(import.meta.dirname, '../..')
const page = await readFile(join(root, 'docs/writing-a-sink.md'), 'utf8')
const blocks = (language: string): readonly string[] =>
  [...page.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)].filter(([, named]) => named === language).map(([, , text]) => text as string)
const sources = blocks('ts')[0] as string

const folder = await mkdtemp(join(tmpdir(), 'millrace-own-sink-'))
await symlink(join(root, 'node_modules'), join(folder, 'node_modules'))
await writeFile(
  join(folder, 'kv-sink.ts'),
  sources.replace("'millrace/connector'", `'${pathToFileURL(join(root, 'src/connector.ts')).href}'`),
)
const { default: kv } = (await import(/* @vite-ignore */ pathToFileURL(join(folder, 'kv-sink.ts')).href)) as {
  default: SinkConnector<{ path: string }>
}
afterAll(() => rm(folder, { recursive: true }))

interface Row {
  readonly key: string
  readonly value: string
  readonly revision: number
}

function shown(path: string): Row[] {
  const db = new DatabaseSync(path, { readOnly: true, timeout: 5_000 })
  try {
    return db.prepare('select key, value, revision from kv order by key').all() as unknown as Row[]
  } finally {
    db.close()
  }
}

sinkContract('the one of docs/writing-a-sink.md', async () => {
  const store = await mkdtemp(join(folder, 'store-'))
  const path = join(store, 'latest.db')
  return {
    open: () => kv.open({ path }, { log: silent, pipeline: 'shop', sink: 'latest', now: Date.now }),
    topic: 'outbox.event.order',
    types: { write: 'OrderPlaced', remove: 'OrderErased' },
    payload: (_key, text) => ({ text }),
    unfit: () => '{ "not": json',
    rows: async () => new Map(shown(path).map(({ key, value }) => [key, JSON.parse(value).text as string])),
    remove: () => rm(store, { recursive: true }),
  }
})

test('its pipeline applies every event once, through kill -9 after kill -9', async () => {
  const source = await createDatabase('shop')
  const path = join(folder, 'latest.db')
  await writeFile(join(folder, 'millrace.yaml'), `${blocks('yaml')[0]}http: false\n`)
  const at = { cwd: folder, env: { DATABASE_URL: source.url } }
  let running: Program | undefined
  try {
    expect(await millrace(['init'], at).finished).toMatchObject({ code: 0 })

    /** by key: the text of the payload as it was written, and how often since it was last erased */
    const written = new Map<string, { value: string; revision: number }>()
    let count = 0
    async function writeSome(): Promise<void> {
      const [emits, tombstones] = [[] as string[][], [] as string[][]]
      for (let index = 0; index < 50; index++) {
        const key = `${++count % 7}`
        // one key only: the others count all that was ever applied
        if (key === '0' && count % 3 === 0) {
          tombstones.push([key])
          written.delete(key)
          break
        }
        const value = `{"count": ${count}, "exact": 9007199254740993.10}`
        emits.push([key, value])
        written.set(key, { value, revision: (written.get(key)?.revision ?? 0) + 1 })
      }
      await source.query(
        `select millrace.emit(aggregate_type => 'order', aggregate_id => key, type => 'Counted', payload => value::json)
         from unnest($1::text[], $2::text[]) with ordinality as e(key, value, at) order by at`,
        [emits.map(([key]) => key), emits.map(([, value]) => value)],
      )
      for (const [key] of tombstones)
        await source.query("select millrace.tombstone(aggregate_type => 'order', aggregate_id => $1, type => 'Erased')", [key])
    }

    const applied = (): bigint => {
      const db = new DatabaseSync(path, { readOnly: true, timeout: 5_000 })
      try {
        const rows = db.prepare('select "offset" from lane where "offset" is not null').all()
        return rows.map((row) => BigInt(row['offset'] as string)).reduce((sum, offset) => sum + offset, 0n)
      } finally {
        db.close()
      }
    }
    for (let life = 0; life < 3; life++) {
      running = millrace(['run'], at)
      const before = applied()
      const target = before + 200n
      await eventually(
        async () => {
          if (BigInt(count) - applied() < 2_000n) await writeSome()
          return applied() > target
        },
        { within: 30_000, what: `life ${life} applied more` },
      )
      // somewhere within a batch, not always after one
      for (let more = Math.random() * 8; more > 0; more--) await writeSome()
      running.signal('SIGKILL')
      await running.finished
    }
    running = millrace(['run'], at)
    const expected = [...written].sort().map(([key, row]) => ({ key, ...row }))
    await eventually(() => JSON.stringify(shown(path)) === JSON.stringify(expected), {
      within: 30_000,
      what: 'the store shows what was written',
    }).catch(() => expect(shown(path)).toEqual(expected))
    const { stdout } = await millrace(['status', '--json'], at).finished
    expect(JSON.parse(stdout)).toMatchObject({ sinks: [{ name: 'latest' }] })
    running.signal('SIGTERM')
    expect((await running.finished).code).toBe(0)
    expect(shown(path)).toEqual(expected)
  } finally {
    running?.signal('SIGKILL')
    await running?.finished
    await source.drop()
  }
}, 180_000)
