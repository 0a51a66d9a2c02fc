import type { Command } from 'commander'
import { MillraceError } from '../../core/errors.ts'
import { SQL_ROLES, type SqlRole } from '../../runtime/role-sql.ts'
import { openPipeline } from '../open-pipeline.ts'
import type { CommandContext } from '../program.ts'
import { oneOf, terminalOf } from '../terminal.ts'

export function addInit(program: Command, context: CommandContext): void {
  program
    .command('init')
    .description('make what is missing: schema, publication, slot, the bookkeeping of the sinks; safe to repeat')
    .option('--sql <role>', `print the statements of a role instead: ${oneOf(SQL_ROLES)}`)
    .option('--new-epoch', 'go on upon a new server with a stream that was drained; see docs/upgrade.md')
    .option('--yes', 'really do it (--new-epoch drops a slot of the name that the new server may have)')
    .addHelpText(
      'after',
      `
--sql is for databases where statements go through a migration tool: owner is who may create the
schema, relay and writer get their grants, sink is a replica. The slot is made by init alone: it
cannot be part of a migration.`,
    )
    .action(async ({ sql, newEpoch, yes }: { sql?: string; newEpoch?: true; yes?: true }, command: Command) => {
      const out = terminalOf(process.stdout, context.env)
      if (sql !== undefined && !SQL_ROLES.includes(sql as SqlRole))
        throw new MillraceError('MILLRACE_USAGE', `--sql ${sql}: expected ${oneOf(SQL_ROLES)}`)
      const pipeline = await openPipeline(command, context)
      if (sql !== undefined) return out.print(await pipeline.sql(sql as SqlRole))
      if (newEpoch && yes !== true)
        throw new MillraceError(
          'MILLRACE_USAGE',
          `init --new-epoch moves the stream ${pipeline.name} to the server of source.url for good`,
          {
            remedy: 'if that is meant: millrace init --new-epoch --yes',
          },
        )
      for (const what of await pipeline.init({ newEpoch: newEpoch === true })) out.print(`${out.style('green', '✓')} ${what}`)
    })
}
