import type { Dice } from './dice.ts'
import { type Action, AGGREGATES, topicFor } from './schedule.ts'

/** A few steps that belong together, each so many ms after the one before it. */
export type Scenario = readonly (readonly [afterMs: number, action: Action])[]

/** What chance alone puts together too seldom: each is the one way to a loss that some rule of the protocol is there for. */
export function drawScenario(
  dice: Dice,
  partitions: number,
  transaction: () => Action,
): { readonly last: boolean; readonly steps: Scenario } {
  const topic = topicFor(dice.pick(AGGREGATES, 'scenario'))
  const partition = dice.below(partitions, 'scenario')
  const everywhere = (then: (topic: string, partition: number) => Action): Scenario =>
    AGGREGATES.flatMap((aggregate) =>
      Array.from({ length: partitions }, (_, at): readonly [number, Action] => [0, then(topicFor(aggregate), at)]),
    )
  const ambush = (process: 'relay A' | 'relay B'): readonly [number, Action] => [
    0,
    { kind: 'crash at', process, failpoint: 'sent', downMs: 2_500, noticedMs: 2_000 },
  ]
  const late = (delay: number): Action => ({
    kind: 'mishap',
    mishap: { to: 'queue', op: 'publish', from: null, delay, happens: true, answer: 'none' },
  })
  const foreign: readonly [number, Action] = [5, { kind: 'foreign record', topic, partition }]
  const scenarios: readonly (() => { readonly last: boolean; readonly steps: Scenario })[] = [
    // an event is on its way while its commit is lost with the server, and arrives when the next session has begun
    () => ({
      last: false,
      steps: [
        [0, late(5_000)],
        [0, transaction()],
        [dice.between(100, 400, 'scenario'), { kind: 'promotion', lagging: 1, ms: 50 }],
        [dice.between(6_000, 9_000, 'scenario'), transaction()],
      ],
    }),
    // a quiet partition loses its end under a relay that has nothing to say
    () => ({ last: true, steps: [[4_000, { kind: 'broker loss', topic, partition, count: 1 + dice.below(3, 'scenario') }]] }),
    // … and others write where the lost events stood
    () => ({ last: true, steps: [[4_000, { kind: 'broker loss', topic, partition, count: 1 }], foreign, foreign, foreign] }),
    // an event that no state covers is lost, and the next one, on its way when its relay died, arrives after that
    () => ({
      last: false,
      steps: [
        // the state is written with the first, and not again within a second
        [1_500, transaction()],
        [300, transaction()],
        [200, late(900)],
        ambush('relay A'),
        ambush('relay B'),
        [0, transaction()],
        [200, { kind: 'postgres checkpoint' }],
        ...everywhere((topic, partition) => ({ kind: 'broker loss', topic, partition, count: 1 })),
        [6_000, transaction()],
      ],
    }),
    // keys move, to partitions that were added or under another mapping, while requests of former relays are on their way
    () => ({
      last: false,
      steps: [
        [0, { kind: 'partitions added', topic }],
        [
          dice.between(0, 3_000, 'scenario'),
          dice.chance(0.5, 'scenario') ? late(dice.between(1_000, 9_000, 'scenario')) : transaction(),
        ],
        [0, transaction()],
        [dice.between(0, 300, 'scenario'), { kind: 'drain', mapping: dice.chance(0.5, 'scenario') }],
        [dice.between(0, 2_000, 'scenario'), transaction()],
      ],
    }),
    // a session's first state arrives when it was given up and the next one has recorded more
    () => ({
      last: false,
      steps: [
        [
          0,
          { kind: 'mishap', mishap: { to: 'queue', op: 'state write', from: null, delay: 5_500, happens: true, answer: 'none' } },
        ],
        [0, { kind: 'stream breaks' }],
        [2_500, transaction()],
        [1_500, transaction()],
        [1_300, { kind: 'stream breaks' }],
        [1_000, { kind: 'stream breaks' }],
      ],
    }),
  ]
  return dice.pick(scenarios, 'scenario')()
}
