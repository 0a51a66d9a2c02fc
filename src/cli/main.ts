#!/usr/bin/env node
import { CommanderError } from 'commander'
import { codeOf, MillraceError } from '../core/errors.ts'
import { Secrets } from '../runtime/secrets.ts'
import { EXIT, type ExitCode, exitCodeFor } from './exit-code.ts'
import { createProgram } from './program.ts'

/** The only place that ends the process. */
async function main(): Promise<ExitCode> {
  const secrets = new Secrets()
  let code: ExitCode = EXIT.done
  const program = createProgram({
    secrets,
    env: process.env,
    exitWith: (verdict) => {
      code = verdict
    },
  })
  try {
    await program.parseAsync(process.argv)
    return code
  } catch (error) {
    // commander has said what was wrong, or printed the help that was asked for
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage
    process.stderr.write(secrets.scrub(explain(error)))
    return exitCodeFor(error)
  }
}

function explain(error: unknown): string {
  if (!(error instanceof MillraceError)) {
    const stack = error instanceof Error ? (error.stack ?? error.message) : String(error)
    return `error: ${stack}\n`
  }
  const remedy = error.remedy === undefined ? '' : `  ${error.remedy}\n`
  return `error: ${error.message}\n${remedy}  (${codeOf(error)})\n`
}

process.exitCode = await main()
// standard output may be a pipe that is still being written to: it is flushed before the process ends by itself, and
// whatever a connector left open must not keep it alive
process.stdout.write('', () => process.exit())
