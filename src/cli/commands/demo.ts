import type { Command } from 'commander'
import { MillraceError } from '../../core/errors.ts'
import { EXIT } from '../exit-code.ts'
import { logLevelOf } from '../open-pipeline.ts'
import type { CommandContext } from '../program.ts'
import { listenForSignals } from '../signals.ts'
import { terminalOf } from '../terminal.ts'

interface DemoFlags {
  readonly events: string
  readonly seconds?: string
  readonly kafka?: string
}

export function addDemo(program: Command, context: CommandContext): void {
  program
    .command('demo')
    .description(
      'the whole way with nothing installed: a Postgres, a shop, the relay, a queue, a replica, and every row compared',
    )
    .option('--events <n>', 'how many events the shop writes', '10000')
    .option('--seconds <n>', 'the shop closes after this long, whatever it has written')
    .option('--kafka <brokers>', 'use this Kafka (host:port, separated by commas) instead of the embedded queue')
    .addHelpText('after', '\nCleans up all that it made, also on Ctrl-C. Exit code 0 only if the replica is equal, else 3.')
    .action(async (flags: DemoFlags, command: Command) => {
      const asked = {
        events: whole('--events', flags.events),
        duration: flags.seconds === undefined ? null : whole('--seconds', flags.seconds) * 1_000,
        kafka: flags.kafka === undefined ? null : brokersOf(flags.kafka),
      }
      // only now: no other command needs what it stands on
      const { runDemo } = await import('../demo/demo.ts')
      const ended = new AbortController()
      const signals = listenForSignals()
      void signals.first.then(() => ended.abort())
      try {
        const demo = runDemo({
          ...asked,
          logLevel: logLevelOf(command) ?? 'error',
          out: terminalOf(process.stdout, context.env),
          signal: ended.signal,
        })
        const equal = await Promise.race([demo, signals.second.then(() => null)])
        if (equal !== true) context.exitWith(equal === null ? EXIT.unexpected : EXIT.negative)
      } finally {
        signals.release()
      }
    })
}

function whole(flag: string, text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text)
  throw new MillraceError('MILLRACE_USAGE', `${flag} ${text}: expected a whole number, at least 1`)
}

function brokersOf(text: string): readonly string[] {
  const brokers = text.split(',').map((broker) => broker.trim())
  if (brokers.every((broker) => /^(\[[0-9a-f:]+\]|[^\s:]+):\d{1,5}$/i.test(broker))) return brokers
  throw new MillraceError('MILLRACE_USAGE', `--kafka ${text}: expected host:port, several separated by commas`)
}
