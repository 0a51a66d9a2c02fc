import { basename } from 'node:path'
import type { Command } from 'commander'
import { MillraceError } from '../core/errors.ts'
import type { MillraceConfig } from '../runtime/config.ts'
import { readConfigFile } from '../runtime/config-file.ts'
import { LOG_LEVELS, type LogLevel } from '../runtime/log.ts'
import { createPipeline, type Pipeline } from '../runtime/pipeline.ts'
import type { CommandContext } from './program.ts'
import { oneOf } from './terminal.ts'

/** The pipeline of the config that the command line names, with its log on standard error. */
export async function openPipeline(command: Command, context: CommandContext): Promise<Pipeline> {
  const logLevel = logLevelOf(command)
  const file = await readConfigFile(command.optsWithGlobals<{ config?: string }>().config)
  // whatever the file holds: checking it is the first thing that is done with it
  return createPipeline(file.raw as MillraceConfig, {
    origin: basename(file.path),
    folder: file.folder,
    env: context.env,
    secrets: context.secrets,
    ...(logLevel !== undefined && { logLevel }),
  })
}

/** @throws MILLRACE_USAGE */
export function logLevelOf(command: Command): LogLevel | undefined {
  const { logLevel } = command.optsWithGlobals<{ logLevel?: string }>()
  if (logLevel === undefined || LOG_LEVELS.includes(logLevel as LogLevel)) return logLevel as LogLevel | undefined
  throw new MillraceError('MILLRACE_USAGE', `--log-level ${logLevel}: expected ${oneOf(LOG_LEVELS)}`)
}
