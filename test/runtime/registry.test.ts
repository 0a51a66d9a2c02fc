import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { loadQueue, loadSink, type Origin, optionsFor } from '../../src/runtime/registry.ts'

let at: Origin
beforeAll(async () => {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-registry-'))
  at = { origin: 'millrace.yaml', folder }
  const connector = join(import.meta.dirname, '../../src/core/connector.ts')
  await writeFile(
    join(folder, 'mine.ts'),
    `import { defineSink } from ${JSON.stringify(connector)}
export default defineSink({
  name: 'mine',
  options: { '~standard': { version: 1, vendor: 'mine', validate: (value) => value.url
    ? { value } : { issues: [{ message: 'expected an address', path: ['url'] }] } } },
  follows: () => null,
  open: async () => { throw new Error('not here') },
})\n`,
  )
  await writeFile(join(folder, 'future.ts'), "export default { connector: 'sink', contract: 2 }\n")
  await writeFile(join(folder, 'other.ts'), 'export const nothing = 1\n')
  await writeFile(join(folder, 'broken.ts'), "throw new Error('broken inside')\n")
})
afterAll(() => rm(at.folder, { recursive: true }))

test("a user's own module is loaded from the config's folder, and its options are checked by its own schema", async () => {
  const sink = await loadSink('./mine.ts', 'own', at)
  expect(sink).toMatchObject({ connector: 'sink', contract: 1, name: 'mine' })
  expect(await optionsFor(sink, { url: 'x' }, at, ['sinks', 'own'])).toEqual({ url: 'x' })
  await expect(optionsFor(sink, {}, at, ['sinks', 'own'])).rejects.toMatchObject({
    code: 'MILLRACE_CONFIG_INVALID',
    message: 'millrace.yaml is not valid:\n  sinks.own.url: expected an address, found nothing',
  })
})

test.each([
  [
    'postgre',
    'sinks.own.kind: unknown sink "postgre" (did you mean "postgres"?): expected postgres, stdout or the path of a module such as "./postgre.ts"',
  ],
  [
    'toString',
    'sinks.own.kind: unknown sink "toString": expected postgres, stdout or the path of a module such as "./toString.ts"',
  ],
  ['./absent.ts', /sinks\.own\.kind: the module of "\.\/absent\.ts" cannot be loaded: Cannot find module/],
  ['./broken.ts', /sinks\.own\.kind: the module of "\.\/broken\.ts" cannot be loaded: Error at .*broken\.ts:1:7$/],
  ['./other.ts', 'sinks.own.kind: ./other.ts is not a sink connector: expected its default export to come from defineSink'],
  ['./future.ts', 'sinks.own.kind: ./future.ts speaks contract 2 of connectors, this version of Millrace speaks 1'],
])('%s is refused with what was expected', async (kind, message) => {
  await expect(loadSink(kind, 'own', at)).rejects.toThrow(message)
})

test('a sink is not a queue', async () => {
  await expect(loadQueue('./mine.ts', at)).rejects.toThrow(
    'queue.kind: ./mine.ts is not a queue connector: expected its default export to come from defineQueue',
  )
})
