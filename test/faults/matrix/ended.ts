import type { Program } from '../../cli/millrace.ts'

/** Waits for the end of a command of the trial, which must be a good one. */
export async function ended(command: string, program: Pick<Program, 'finished'>): Promise<void> {
  const { code, stderr } = await program.finished
  if (code !== 0) throw new Error(`millrace ${command} ended with ${code}:\n${stderr.slice(-4_000)}`)
}
