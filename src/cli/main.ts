#!/usr/bin/env node
import { CommanderError } from 'commander'
import { codeOf, MillraceError } from '../core/errors.ts'
import { describeError } from '../runtime/log.ts'
import { Secrets } from '../runtime/secrets.ts'
import { EXIT, type ExitCode, exitCodeFor } from './exit-code.ts'
import { createProgram } from './program.ts'

const secrets = new Secrets()
// what a config is made of may stand in messages before the config is known
for (const [name, value] of Object.entries(process.env))
  if (value !== undefined && !/_(FILE|PATH|DIR)$/i.test(name)) secrets.learn(name, value)

// what nobody caught would be printed by Node with all that hangs on it
for (const event of ['uncaughtException', 'unhandledRejection'] as const)
  process.on(event, (error: unknown) => {
    process.stderr.write(secrets.scrub(explain(error)))
    process.exit(EXIT.unexpected)
  })

/** The only place that ends the process. */
async function main(): Promise<ExitCode> {
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
    // the stack begins with the message, which may quote a row
    const frames = error instanceof Error ? (error.stack ?? '').split('\n').filter((line) => /^ {4}at /.test(line)) : []
    const { message } = describeError(error) as { message: string }
    return [`error: ${message}`, ...frames, '  (MILLRACE_INTERNAL)', ''].join('\n')
  }
  const remedy = error.remedy === undefined ? '' : `  ${error.remedy}\n`
  return `error: ${error.message}\n${remedy}  (${codeOf(error)})\n`
}

process.exitCode = await main()
// standard output may be a pipe that is still being written to: it is flushed before the process ends by itself, and
// whatever a connector left open must not keep it alive
process.stdout.write('', () => process.exit())
