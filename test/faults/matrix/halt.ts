import type { Halt } from '../processes.ts'

export interface Explained {
  readonly code: string
  readonly happened: RegExp
  /** what is not lost, or was not done */
  readonly safe: RegExp
  /** how to go on */
  readonly command: RegExp
}

/** One message says what happened, what is safe, and the command to go on. */
export function explains(halt: Halt, { code, ...said }: Explained): void {
  const text = `${halt.message}\n${halt.remedy}`
  const missing = Object.entries(said).filter(([, pattern]) => !pattern.test(text))
  if (halt.code !== code) throw new Error(`halted with ${halt.code} instead of ${code}: ${text}`)
  if (missing.length > 0)
    throw new Error(
      `the halt does not say ${missing.map(([what, pattern]) => `${what} (${pattern})`).join(' nor ')}:\n${code}: ${text}`,
    )
}
