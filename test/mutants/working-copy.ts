import { execFile } from 'node:child_process'
import { copyFile, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { type Mutant, plant } from './mutant.ts'

const ROOT = join(import.meta.dirname, '../..')

/** The working tree as it is, in a temporary folder: the only place where a bug is ever planted. */
export interface WorkingCopy {
  readonly folder: string
  /** Does the work while the bug is in the copy. @throws when the bug no longer applies */
  withBug<T>(mutant: Mutant, work: () => Promise<T>): Promise<T>
  remove(): Promise<void>
}

export async function copyWorkingTree(): Promise<WorkingCopy> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-mutants-'))
  const args = ['ls-files', '--cached', '--others', '--exclude-standard', '-z']
  const { stdout } = await promisify(execFile)('git', args, { cwd: ROOT, maxBuffer: 1 << 26 })
  for (const file of new Set(stdout.split('\0').filter(Boolean))) {
    const to = join(folder, file)
    await mkdir(dirname(to), { recursive: true })
    await copyFile(join(ROOT, file), to).catch((error: NodeJS.ErrnoException) => {
      // deleted, and not yet committed
      if (error.code !== 'ENOENT') throw error
    })
  }
  await symlink(join(ROOT, 'node_modules'), join(folder, 'node_modules'))
  return {
    folder,
    async withBug(mutant, work) {
      const path = join(folder, mutant.file)
      const source = await readFile(path, 'utf8')
      await writeFile(path, plant(source, mutant))
      try {
        return await work()
      } finally {
        await writeFile(path, source)
      }
    },
    remove: () => rm(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 }),
  }
}
