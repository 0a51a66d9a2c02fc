import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, relative, resolve } from 'node:path'
import { beforeAll, expect, test } from 'vitest'

/** file, what it may import, what it may not */
const ROOMS: readonly (readonly [string, readonly string[], readonly string[]])[] = [
  ['src/core/a.ts', ['./position.ts'], ['pg', 'node:fs', '../postgres/slot.ts', '../../connectors/sinks/stdout.ts']],
  ['src/outbox/a.ts', ['./emit.ts', '../core/errors.ts', 'node:crypto'], ['kysely', 'pg', '@scope/name', '../runtime/config.ts']],
  [
    'src/pipeline/a.ts',
    ['./relay.ts', '../core/queue.ts', 'node:timers/promises'],
    ['pg', 'kafkajs', '../postgres/slot.ts', '../runtime/log.ts'],
  ],
  [
    'src/postgres/a.ts',
    ['./slot.ts', '../core/change.ts', 'pg'],
    ['../pipeline/relay.ts', '../runtime/log.ts', '../outbox/index.ts', '../index.ts'],
  ],
  [
    'connectors/queues/a.ts',
    ['../../src/core/queue.ts', './kafka/cluster.ts', 'kafkajs'],
    ['../../src/pipeline/relay.ts', '../../src/postgres/slot.ts'],
  ],
  [
    'connectors/sinks/postgres/a.ts',
    ['../../../src/core/sink.ts', './mapping.ts', 'pg'],
    ['../../../src/postgres/slot.ts', '../../../src/index.ts'],
  ],
  [
    'src/runtime/a.ts',
    ['../pipeline/relay.ts', '../postgres/slot.ts', '../../connectors/queues/kafka.ts', 'zod'],
    ['../server/admin.ts', '../cli/main.ts', '../index.ts'],
  ],
  [
    'src/server/a.ts',
    ['../runtime/status.ts', '../core/errors.ts', 'prom-client'],
    ['../pipeline/relay.ts', '../postgres/slot.ts', '../cli/main.ts'],
  ],
  ['src/cli/a.ts', ['../runtime/run.ts', '../server/admin.ts', 'commander'], []],
  ['src/connector.ts', ['./core/sink.ts'], ['zod', 'node:fs', './runtime/config.ts', '../connectors/sinks/stdout.ts']],
  [
    'src/testing/a.ts',
    ['./events.ts', '../core/sink.ts', 'node:assert/strict'],
    ['vitest', '../pipeline/relay.ts', '../index.ts'],
  ],
  ['src/index.ts', ['./runtime/run.ts', './core/errors.ts'], ['./cli/main.ts']],
]

/** Every way to import them. */
const lines = (imports: readonly string[]): string[] =>
  imports.flatMap((from) => [
    `import '${from}'`,
    `export * from '${from}'`,
    `import type { A } from '${from}'`,
    `await import('${from}')`,
  ])

/** The lint that `npm run check` runs, over a house where every room imports what it may and what it may not. */
let refused: Map<string, string[]>

beforeAll(async () => {
  const house = await mkdtemp(join(tmpdir(), 'millrace-layering-'))
  const root = join(import.meta.dirname, '../..')
  try {
    const config = JSON.parse(await readFile(join(root, 'biome.json'), 'utf8'))
    await writeFile(join(house, 'biome.json'), JSON.stringify({ ...config, $schema: undefined, vcs: undefined }))
    for (const [file, allowed, forbidden] of ROOMS) {
      await mkdir(dirname(join(house, file)), { recursive: true })
      await writeFile(
        join(house, file),
        lines([...allowed, ...forbidden])
          .map((line) => `${line}\n`)
          .join(''),
      )
    }
    refused = new Map()
    for (const report of await lint(join(root, 'node_modules/.bin/biome'), house)) {
      const found = /lint\/style\/noRestrictedImports,file=(.+?),line=(\d+)/.exec(report)
      if (!found) continue
      const file = relative(house, resolve(house, found[1] as string))
      refused.set(file, [...(refused.get(file) ?? []), found[2] as string])
    }
  } finally {
    await rm(house, { recursive: true, force: true })
  }
})

test.each(ROOMS)('%s imports what is below it and nothing else', (file, allowed, forbidden) => {
  const all = lines([...allowed, ...forbidden])
  const texts = (refused.get(file) ?? []).map((line) => all[Number(line) - 1])
  expect(texts.sort()).toEqual(lines(forbidden).sort())
})

function lint(biome: string, folder: string): Promise<string[]> {
  const args = ['lint', '--only=style/noRestrictedImports', '--reporter=github', '--max-diagnostics=none', '.']
  return new Promise((resolved) => {
    // it ends with 1, as it should
    execFile(biome, args, { cwd: folder }, (_error, stdout) => resolved(stdout.split('\n')))
  })
}
