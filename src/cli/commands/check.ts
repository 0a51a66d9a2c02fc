import type { Command } from 'commander'
import { EXIT } from '../exit-code.ts'
import { openPipeline } from '../open-pipeline.ts'
import type { CommandContext } from '../program.ts'
import { terminalOf } from '../terminal.ts'

export function addCheck(program: Command, context: CommandContext): void {
  program
    .command('check')
    .description('look at the config, the database, the queue and the sinks, and say what would lose data or cannot work')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nChanges nothing; may be run before init. Exit code 3 when it found a blocker.')
    .action(async ({ json }: { json?: true }, command: Command) => {
      const pipeline = await openPipeline(command, context)
      const findings = await pipeline.check()
      const out = terminalOf(process.stdout, context.env)
      if (json) out.print(context.secrets.scrub(JSON.stringify({ schema: 1, pipeline: pipeline.name, findings }, null, 2)))
      else {
        const mark = { ok: out.style('green', '✓'), warning: out.style('yellow', '!'), blocker: out.style('red', '✗') } as const
        for (const { level, subject, message, remedy } of findings) {
          out.print(context.secrets.scrub(`${mark[level]} ${out.style('bold', subject)}: ${message}`))
          if (remedy !== undefined) for (const line of remedy.split('\n')) out.print(context.secrets.scrub(`    ${line}`))
        }
      }
      if (findings.some((finding) => finding.level === 'blocker')) context.exitWith(EXIT.negative)
    })
}
