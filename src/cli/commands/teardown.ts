import type { Command } from 'commander'
import { MillraceError } from '../../core/errors.ts'
import { openPipeline } from '../open-pipeline.ts'
import type { CommandContext } from '../program.ts'
import { terminalOf } from '../terminal.ts'

interface TeardownFlags {
  readonly slot?: true
  readonly publication?: true
  readonly schema?: true
  readonly yes?: true
}

export function addTeardown(program: Command, context: CommandContext): void {
  program
    .command('teardown')
    .description('remove what init made in the database; an abandoned slot fills its disk')
    .option('--slot', 'the replication slot: what was not relayed yet is never relayed')
    .option('--publication', 'the publication')
    .option('--schema', "the schema millrace with the outbox in it, and the relay's state in the queue")
    .option('--yes', 'really remove it')
    .addHelpText('after', '\nEvents in the queue and the sinks are never touched. Stop the relay first.')
    .action(async ({ yes, ...parts }: TeardownFlags, command: Command) => {
      const named = Object.keys(parts).filter((part) => ['slot', 'publication', 'schema'].includes(part))
      if (named.length === 0)
        throw new MillraceError('MILLRACE_USAGE', 'nothing to remove was named: expected --slot, --publication or --schema')
      const pipeline = await openPipeline(command, context)
      if (yes !== true)
        throw new MillraceError('MILLRACE_USAGE', `this removes ${named.join(', ')} of the pipeline ${pipeline.name} for good`, {
          remedy: `if that is meant: millrace teardown ${named.map((part) => `--${part}`).join(' ')} --yes`,
        })
      const removed = await pipeline.teardown(parts)
      const out = terminalOf(process.stdout, context.env)
      for (const what of removed) out.print(`removed ${what}`)
      if (removed.length === 0) out.print('there was nothing to remove')
    })
}
