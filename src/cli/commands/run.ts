import type { Command } from 'commander'
import { DURATION, parseDuration } from '../../core/duration.ts'
import { MillraceError } from '../../core/errors.ts'
import type { Running } from '../../runtime/run.ts'
import { startAdmin } from '../../server/admin.ts'
import { adminSurface } from '../../server/surface.ts'
import { EXIT } from '../exit-code.ts'
import { boundHeap } from '../heap.ts'
import { openPipeline } from '../open-pipeline.ts'
import type { CommandContext } from '../program.ts'
import { listenForSignals } from '../signals.ts'

interface RunFlags {
  readonly relay?: true
  readonly sink?: readonly string[]
  readonly drain: string
}

export function addRun(program: Command, context: CommandContext): void {
  program
    .command('run')
    .description('relay events to the queue and apply them to the sinks, until SIGTERM or SIGINT')
    .option('--relay', 'run the relay only (with --sink: it and those sinks)')
    .option('--sink <name>', 'run one sink only; may be given several times', collect)
    .option('--drain <duration>', 'how long a drain may take before exit code 5', '25s')
    .addHelpText(
      'after',
      `
Without --relay and --sink: everything that the config has. Never migrates: where something is
missing it stops and names the command. The first signal drains, a second one ends at once.`,
    )
    .action(async (flags: RunFlags, command: Command) => {
      const deadline = parseDuration(flags.drain)
      if (deadline === null) throw new MillraceError('MILLRACE_USAGE', `--drain ${flags.drain}: expected ${DURATION}`)
      const pipeline = await openPipeline(command, context)
      boundHeap()
      const only = flags.relay === true || flags.sink !== undefined
      const signals = listenForSignals()
      let running: Running | null = null
      // first, so that an address in use is told before the slot is taken
      const admin =
        pipeline.http === false
          ? null
          : await startAdmin(
              adminSurface(
                pipeline.name,
                () => running,
                (text) => context.secrets.scrub(text),
              ),
              pipeline.http,
            )
      if (admin !== null) pipeline.log.info({ url: admin.url }, 'serving /livez, /readyz, /metrics and /status')
      try {
        const begun = await pipeline.run(only ? { relay: flags.relay === true, sinks: flags.sink ?? [] } : undefined)
        running = begun
        const signal = await Promise.race([signals.first, begun.done])
        if (signal !== undefined) pipeline.log.info({ signal, deadline }, 'draining; a second signal ends at once')
        if ((await Promise.race([begun.stop(deadline), signals.second])) !== undefined) context.exitWith(EXIT.drainTimeout)
      } finally {
        signals.release()
        await admin?.close()
      }
    })
}

function collect(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value]
}
