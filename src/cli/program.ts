import { Command } from 'commander'
import type { Secrets } from '../runtime/secrets.ts'
import { addBackfill } from './commands/backfill.ts'
import { addCheck } from './commands/check.ts'
import { addCheckpoint } from './commands/checkpoint.ts'
import { addConfig } from './commands/config.ts'
import { addDemo } from './commands/demo.ts'
import { addDrain } from './commands/drain.ts'
import { addInit } from './commands/init.ts'
import { addParked } from './commands/parked.ts'
import { addRebuild } from './commands/rebuild.ts'
import { addReplay } from './commands/replay.ts'
import { addResume } from './commands/resume.ts'
import { addRun } from './commands/run.ts'
import { addStatus } from './commands/status.ts'
import { addTeardown } from './commands/teardown.ts'
import { addVerify } from './commands/verify.ts'
import type { ExitCode } from './exit-code.ts'
import { VERSION } from './version.ts'

/** What the commands work with, beside their arguments. */
export interface CommandContext {
  readonly secrets: Secrets
  readonly env: NodeJS.ProcessEnv
  /** the exit code of a command that did its work, when it is not 0 */
  readonly exitWith: (code: ExitCode) => void
}

export function createProgram(context: CommandContext): Command {
  const program = new Command('millrace')
    .description(
      'From a Postgres transaction to every replica: events leave an outbox by the WAL, travel a queue and reach every sink.',
    )
    .version(VERSION, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .helpCommand(false)
    .option('-c, --config <path>', 'the config; default: millrace.config.ts or millrace.yaml of the current folder')
    .option('--log-level <level>', 'debug, info, warn, error or silent; default: log.level of the config')
    .configureHelp({ sortSubcommands: false, showGlobalOptions: true, helpWidth: 100 })
    .configureOutput({ outputError: (text, write) => write(text) })
    .showSuggestionAfterError()
    .exitOverride()
    .addHelpText(
      'after',
      `
Exit codes: 0 done, equal, drained · 1 unexpected · 2 usage or config · 3 negative verdict
            4 halted, a person must decide · 5 drain deadline passed
Data goes to standard output, logs to standard error.`,
    )
  for (const add of [
    addCheck,
    addInit,
    addRun,
    addStatus,
    addDrain,
    addResume,
    addParked,
    addCheckpoint,
    addReplay,
    addVerify,
    addRebuild,
    addBackfill,
    addTeardown,
    addConfig,
    addDemo,
  ])
    add(program, context)
  for (const command of program.commands) command.exitOverride().helpOption('-h, --help', 'print this help')
  return program
}
