import type { Command } from 'commander'
import { formatLsn, parsePosition } from '../../core/position.ts'
import type { SavedCheckpoint } from '../../core/saved-checkpoint.ts'
import type { CheckpointPlace, ShownCheckpoint } from '../../runtime/checkpoint.ts'
import type { Pipeline } from '../../runtime/pipeline.ts'
import { openPipeline } from '../open-pipeline.ts'
import type { CommandContext } from '../program.ts'
import { table, terminalOf } from '../terminal.ts'

interface Flags {
  readonly json?: true
}

export function addCheckpoint(program: Command, context: CommandContext): void {
  const checkpoint = program
    .command('checkpoint')
    .description('moments of the stream under a name, for a replay to begin at')
    .helpCommand(false)
    .addHelpText(
      'after',
      `
A checkpoint is one moment for the relay and every sink: each partition's place in the queue. What
the relay had not relayed by then comes after it. The running relay takes one on the interval of the
config (checkpoints.every) by itself. Needs only the queue; nothing that runs is touched.`,
    )

  async function answer(command: Command, ask: (pipeline: Pipeline) => Promise<Answer>): Promise<void> {
    const pipeline = await openPipeline(command, context)
    const { json, lines } = await ask(pipeline)
    const out = terminalOf(process.stdout, context.env)
    const flags = command.opts<Flags>()
    if (flags.json) out.print(context.secrets.scrub(JSON.stringify({ schema: 1, pipeline: pipeline.name, ...json }, null, 2)))
    else for (const line of lines) out.print(context.secrets.scrub(line))
  }

  checkpoint
    .command('save <name>')
    .description('save where the stream stands now')
    .option('--json', 'print JSON')
    .action((name: string, _: Flags, command: Command) =>
      answer(command, async ({ checkpoints }) => {
        const saved = await checkpoints.save(name)
        return {
          json: { checkpoint: reported(saved) },
          lines: [
            `saved ${saved.name}: before it is what was relayed by now, all that was committed below ${lsnOf(saved)}, in ${count(places(saved), 'partition')} of ${count(saved.topics.size, 'topic')}`,
          ],
        }
      }),
    )
  checkpoint
    .command('list')
    .description('those there are, oldest first')
    .option('--json', 'print JSON')
    .action((_: Flags, command: Command) =>
      answer(command, async ({ checkpoints }) => {
        const list = await checkpoints.list()
        const rows = list.map((one) => [one.name, timeOf(one), one.position, lsnOf(one), one.automatic ? 'automatic' : 'saved'])
        return {
          json: { checkpoints: list.map(reported) },
          lines: list.length === 0 ? ['there is no checkpoint'] : table([['NAME', 'AT', 'POSITION', 'LSN', ''], ...rows]),
        }
      }),
    )
  checkpoint
    .command('show <name>')
    .description("one of them: each partition's place, and whether the queue still holds what came after")
    .option('--json', 'print JSON')
    .action((name: string, _: Flags, command: Command) =>
      answer(command, async ({ checkpoints }) => {
        const shown = await checkpoints.show(name)
        return {
          json: { checkpoint: { ...reported(shown), current: shown.current, partitions: shown.partitions.map(placeJson) } },
          lines: describe(shown),
        }
      }),
    )
  checkpoint
    .command('drop <name>')
    .description('remove one')
    .option('--json', 'print JSON')
    .action((name: string, _: Flags, command: Command) =>
      answer(command, async ({ checkpoints }) => {
        await checkpoints.drop(name)
        return { json: { dropped: name }, lines: [`dropped ${name}`] }
      }),
    )
}

interface Answer {
  readonly json: object
  readonly lines: Iterable<string>
}

function* describe(shown: ShownCheckpoint): Generator<string> {
  yield `${shown.name}: ${shown.automatic ? 'taken' : 'saved'} at ${timeOf(shown)}`
  yield `  before it: what was relayed by then, which is all that was committed below ${lsnOf(shown)} (${shown.position})`
  if (!shown.current) yield '  it is of another stream than the one that runs now: nothing can be replayed from it'
  yield ''
  yield* table(
    [
      ['TOPIC', 'PARTITION', 'OFFSET', 'LAST EVENT', 'RETAINED'],
      ...shown.partitions.map(({ topic, partition, offset, position, retained }) => [
        topic,
        String(partition),
        String(offset),
        position ?? '-',
        retained === null ? 'gone' : retained ? 'yes' : 'no',
      ]),
    ],
    [1, 2],
  )
}

const reported = (checkpoint: SavedCheckpoint) => ({
  name: checkpoint.name,
  at: timeOf(checkpoint),
  automatic: checkpoint.automatic,
  source: checkpoint.source,
  streamId: checkpoint.streamId,
  position: checkpoint.position,
  lsn: lsnOf(checkpoint),
  topics: checkpoint.topics.size,
})

const placeJson = ({ offset, ...place }: CheckpointPlace) => ({ ...place, offset: String(offset) })

const timeOf = ({ at }: SavedCheckpoint): string => new Date(at).toISOString()
const lsnOf = ({ position }: SavedCheckpoint): string => formatLsn(parsePosition(position).commitLsn)
const places = ({ topics }: SavedCheckpoint): number => [...topics.values()].reduce((sum, tails) => sum + tails.length, 0)
const count = (number: number, what: string): string => `${number} ${what}${number === 1 ? '' : 's'}`
