import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

const root = join(import.meta.dirname, '../..')
// npm and the package both run on the Node that runs this test
const env = { ...process.env, PATH: `${dirname(process.execPath)}${delimiter}${process.env['PATH']}` }
const run = promisify(execFile)

/** An empty project with the package installed from its tarball, as a user has it. */
let project: string

beforeAll(async () => {
  project = await mkdtemp(join(tmpdir(), 'millrace-package-'))
  await writeFile(join(project, 'package.json'), '{ "name": "empty", "private": true }')
  await run('npm', ['pack', '--foreground-scripts', '--pack-destination', project], { cwd: root, env }).catch((failed) => {
    throw new Error(`${failed.message}\n${failed.stdout}`)
  })
  const tarball = (await readdir(project)).find((name) => name.endsWith('.tgz')) as string
  await run('npm', ['install', '--no-audit', '--no-fund', '--prefer-offline', `./${tarball}`], { cwd: project, env })
}, 300_000)
afterAll(() => rm(project, { recursive: true, force: true }))

/** What a script in the project prints. */
async function evaluate(script: string, kind: 'module' | 'commonjs'): Promise<string> {
  const { stdout } = await run(process.execPath, [`--input-type=${kind}`, '--eval', script], { cwd: project, env })
  return stdout.trim()
}

test.each(['millrace', 'millrace/outbox', 'millrace/events', 'millrace/connector', 'millrace/testing'])(
  'import of %s finds names',
  async (entry) => {
    const names = await evaluate(`console.log(JSON.stringify(Object.keys(await import('${entry}'))))`, 'module')
    expect(JSON.parse(names)).not.toHaveLength(0)
  },
)

test('a service written in CommonJS can require the outbox', async () => {
  expect(await evaluate(`console.log(typeof require('millrace/outbox').createOutbox)`, 'commonjs')).toBe('function')
})

test.each(['outbox', 'events', 'connector', 'testing'])('millrace/%s loads nothing from npm', async (entry) => {
  const loaded = await evaluate(
    `const { registerHooks } = require('node:module')
     const seen = []
     registerHooks({ load(url, context, next) { seen.push(url); return next(url, context) } })
     require('millrace/${entry}')
     console.log(JSON.stringify(seen.filter((url) => url.startsWith('file:'))))`,
    'commonjs',
  )
  const files = JSON.parse(loaded) as string[]
  expect(files).not.toHaveLength(0)
  expect(files.filter((url) => !url.includes('/node_modules/millrace/dist/'))).toEqual([])
})

describe('who writes a connector', () => {
  let folder: string
  beforeAll(async () => {
    folder = join(project, 'connectors')
    await mkdir(folder)
    await writeFile(join(folder, 'package.json'), '{ "type": "module" }')
  })

  test('finds in docs/writing-a-sink.md a sink that compiles, and holds to the contract on a runner of its own', async () => {
    const page = await readFile(join(root, 'docs/writing-a-sink.md'), 'utf8')
    const [sink, contract] = [...page.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(([, text]) => text as string)
    await writeFile(join(folder, 'kv-sink.ts'), sink as string)
    await writeFile(join(folder, 'kv-sink.test.ts'), contract as string)
    await compile('kv-sink.ts', 'kv-sink.test.ts')
    const { stdout } = await run(process.execPath, ['--test', '--test-reporter=tap', 'kv-sink.test.ts'], { cwd: folder, env })
    expect(stdout).toMatch(/^# pass [1-9]\d$/m)
    expect(stdout).toMatch(/^# fail 0$/m)
  })

  test.each(['own-queue.ts', 'own-sink.ts'])('can import every type that %s takes', async (file) => {
    const source = await readFile(join(import.meta.dirname, file), 'utf8')
    const imported = source
      .replaceAll("'../../src/connector.ts'", "'millrace/connector'")
      .replaceAll("'../../src/testing/index.ts'", "'millrace/testing'")
    await writeFile(join(folder, file), imported)
    await compile(file)
  })

  /** As strictly as TypeScript can, our declarations included. */
  async function compile(...files: readonly string[]): Promise<void> {
    const types = ['--types', 'node', '--typeRoots', join(root, 'node_modules/@types')]
    const strict = ['--strict', '--exactOptionalPropertyTypes', '--noUncheckedIndexedAccess', '--verbatimModuleSyntax']
    const modules = ['--target', 'es2024', '--module', 'nodenext', '--noEmit', '--allowImportingTsExtensions']
    const said = await run(join(root, 'node_modules/.bin/tsc'), [...types, ...strict, ...modules, ...files], { cwd: folder, env })
      .then(({ stdout }) => stdout)
      .catch(({ stdout, stderr }) => `${stdout}${stderr}`)
    expect(said).toBe('')
  }
})

test('nothing else is reachable', async () => {
  for (const path of ['millrace/dist/src/index.js', 'millrace/dist/src/core/position.js', 'millrace/runtime']) {
    const code = await evaluate(`console.log(await import('${path}').then(() => 'reached', (error) => error.code))`, 'module')
    expect([path, code]).toEqual([path, 'ERR_PACKAGE_PATH_NOT_EXPORTED'])
  }
})

test('the command runs', async () => {
  const { stdout } = await run('npx', ['--no-install', 'millrace', '--help'], { cwd: project, env })
  expect(stdout).toContain('Usage: millrace')
})

test('brings what it runs on, and none of what it is made with', async () => {
  const installed = join(project, 'node_modules/millrace')
  expect((await readdir(installed)).sort()).toEqual(['CHANGELOG.md', 'LICENSE', 'README.md', 'dist', 'package.json'])
  expect((await readdir(join(installed, 'dist'))).sort()).toEqual(['connectors', 'migrations', 'src'])
  expect(await readdir(join(installed, 'dist/migrations'))).toEqual(await readdir(join(root, 'migrations')))
})

test('offers these entries; each is a promise to users', async () => {
  const { exports } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'))
  expect(exports).toEqual({
    '.': { types: './dist/src/index.d.ts', default: './dist/src/index.js' },
    './outbox': { types: './dist/src/outbox/index.d.ts', default: './dist/src/outbox/index.js' },
    './events': { types: './dist/src/outbox/events.d.ts', default: './dist/src/outbox/events.js' },
    './connector': { types: './dist/src/connector.d.ts', default: './dist/src/connector.js' },
    './testing': { types: './dist/src/testing/index.d.ts', default: './dist/src/testing/index.js' },
    './package.json': './package.json',
  })
})
