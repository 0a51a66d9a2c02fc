import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'

/** every file that an entry loads at run time: `import type` and `export type` are gone by then */
async function loadedBy(entry: URL, seen = new Map<string, string>()): Promise<ReadonlyMap<string, string>> {
  if (seen.has(entry.href)) return seen
  const source = await readFile(entry, 'utf8')
  seen.set(entry.href, source)
  for (const [, path] of source.matchAll(/^(?:import|export)(?!\s+type\b)[^;'"]*?from\s+['"]([^'"]+)['"]/gm))
    if (path?.startsWith('.')) await loadedBy(new URL(path, entry), seen)
    else seen.set(path as string, '')
  return seen
}

test.each(['index', 'events'])('millrace/outbox and millrace/events load nothing but this package: %s', async (entry) => {
  const loaded = await loadedBy(new URL(`../../src/outbox/${entry}.ts`, import.meta.url))
  expect(loaded.size).toBeGreaterThan(1)
  expect([...loaded.keys()].filter((path) => !/\/src\/(outbox|core)\/[a-z-]+\.ts$/.test(path))).toEqual([])
  for (const [path, source] of loaded) expect(source, path).not.toMatch(/\brequire\(|\bimport\(/)
})
