import type { Command } from 'commander'
import { configJsonSchema } from '../../runtime/config-json-schema.ts'
import { openPipeline } from '../open-pipeline.ts'
import type { CommandContext } from '../program.ts'
import { terminalOf } from '../terminal.ts'

export function addConfig(program: Command, context: CommandContext): void {
  program
    .command('config')
    .description('print the config as it is understood, defaults included and secrets hidden')
    .option('--schema', 'print the JSON Schema of configs instead, for editors')
    .action(async ({ schema }: { schema?: true }, command: Command) => {
      const out = terminalOf(process.stdout, context.env)
      if (schema) return out.print(JSON.stringify(await configJsonSchema(), null, 2))
      const pipeline = await openPipeline(command, context)
      out.print(JSON.stringify(await pipeline.describe(), null, 2))
    })
}
