import { execFile } from 'node:child_process'
import { chmod, mkdtemp, open, rm, rmdir, statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

/** A small disk of its own, in memory, to be filled up. Mounting needs root. */
export interface SmallDisk {
  readonly folder: string
  /** takes all but so many bytes of what is free */
  fill(leave?: number): Promise<void>
  /** gives back what `fill` took */
  free(): Promise<void>
  remove(): Promise<void>
}

const run = promisify(execFile)
const BLOCK = 1 << 20

export async function mountSmallDisk(megabytes: number): Promise<SmallDisk> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-disk-'))
  await run('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'millrace-test', folder])
  // servers run as nobody there
  await chmod(folder, 0o777)
  const ballast = join(folder, 'ballast')
  return {
    folder,
    async fill(leave = 0) {
      const file = await open(ballast, 'a')
      try {
        const block = Buffer.alloc(BLOCK)
        for (;;) {
          const { bavail, bsize } = await statfs(folder)
          const rest = bavail * bsize - leave
          if (rest <= 0) return
          await file.write(block, 0, Math.min(rest, BLOCK))
        }
      } catch (error) {
        // somebody else took the last of it
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
      } finally {
        await file.close()
      }
    },
    free: () => rm(ballast, { force: true }),
    async remove() {
      // a process that has just ended may hold a file a moment longer: then it goes when that lets go
      await run('umount', ['-l', folder])
      await rmdir(folder)
    },
  }
}
