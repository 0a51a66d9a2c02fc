import { type Mutant, simulation, simulationHaving, test } from '../mutant.ts'

/** In the applier: what a sink is given, and what it is not. */
export const LANE_MUTANTS: readonly Mutant[] = [
  {
    bug: '`prev` <= what was applied last, instead of equal to it',
    harm: 'an event whose predecessors are missing is applied behind an older one',
    file: 'src/core/chain.ts',
    edits: [{ find: 'if (event.prev === chain.at)', replace: "if ((event.prev ?? '') <= chain.at)" }],
    caughtBy: test('core/chain', 'an event follows only the one that was applied last: equal, not merely older'),
  },
  {
    bug: 'any newer event follows',
    harm: 'a gap is stepped over',
    file: 'src/core/chain.ts',
    edits: [
      {
        find: "return chain.founding ? 'founding' : 'gap'",
        replace: "return 'next'",
      },
    ],
    caughtBy: simulationHaving('broker loss'),
  },
  {
    bug: 'any first event founds a chain',
    harm: 'a log that has lost its very first records is taken for one that begins with what is left',
    file: 'src/core/chain.ts',
    edits: [{ find: "return whole && event.prev !== null ? 'gap' : 'founding'", replace: "return 'founding'" }],
    caughtBy: simulationHaving('broker loss'),
  },
  {
    bug: 'a chain may be founded anew for ever',
    harm: 'for a sink that joined late every gap is a new beginning',
    file: 'src/core/chain.ts',
    edits: [
      {
        find: '(chain.at === null || chain.founding) && offset < until',
        replace: '(chain.at === null || chain.founding) && offset >= 0n && until > 0n',
      },
    ],
    caughtBy: test('core/chain', 'a chain that began in the midst of a log may have met a stale run'),
  },
  {
    bug: 'how a sink began is not kept',
    harm: 'after a restart a log that lost its first records is taken for one that begins with what is left',
    file: 'src/pipeline/lane-follower.ts',
    edits: [
      {
        find: 'checkpoint.beginning === null ? null : decodeBeginning(checkpoint.beginning)',
        replace: 'checkpoint.offset === null ? null : decodeBeginning(\'{"until":"1","founding":[]}\')',
      },
    ],
    caughtBy: simulation,
  },
  {
    bug: 'what is stale is a gap',
    harm: "a zombie's late run, which is harmless, halts every sink",
    file: 'src/core/chain.ts',
    edits: [
      { find: "if (event.position <= chain.at) return 'stale'", replace: "if (event.position === chain.at) return 'stale'" },
    ],
    caughtBy: simulation,
  },
  {
    bug: 'the checkpoint moves before the events are applied',
    harm: 'a crash in between skips them for ever',
    file: 'src/pipeline/lane-follower.ts',
    edits: [
      {
        find: 'if (plan.batch.offset > before.offset) await lane.apply(plan.batch)\n',
        replace: `if (plan.batch.offset > before.offset) {
          await lane.apply({ ...plan.batch, events: [], parked: [] })
          await lane.apply({ ...plan.batch, moves: [] })
        }\n`,
      },
    ],
    caughtBy: simulation,
  },
  {
    bug: 'an apply whose outcome is unknown is taken for done',
    harm: 'what was not applied is passed over, or the checkpoint is not where it is thought to be',
    file: 'src/pipeline/lane-follower.ts',
    edits: [
      { find: 'if (refused === null) throw caught\n', replace: 'if (refused === null) return void (state = plan.after)\n' },
    ],
    caughtBy: simulation,
  },
  {
    bug: 'after an unknown outcome the checkpoint is not read again',
    harm: 'the lane goes on from where it thinks it is',
    file: 'src/pipeline/lane-follower.ts',
    edits: [{ find: 'await follow(lane, await lane.reread())', replace: 'await follow(lane, lane.checkpoint)' }],
    caughtBy: simulation,
  },
  {
    bug: 'a fenced owner takes the partition back',
    harm: 'two members of a group take it in turn for ever',
    file: 'src/pipeline/lane-follower.ts',
    edits: [{ find: "            return 'fenced'\n", replace: '            lane = null\n            continue\n' }],
    caughtBy: test('pipeline/applier', 'an applier whose partition another took is fenced and writes nothing more'),
  },
  {
    bug: 'an offset outside the log is not noticed',
    harm: 'what retention or a broker took before it was applied shows as a gap once more comes, or never',
    file: 'src/pipeline/lane-follower.ts',
    edits: [
      {
        find: 'if (offset !== null) checkRange(offset, range)',
        replace: 'if (offset !== null) offset = offset < range.start ? range.start : offset > range.end ? range.end : offset',
      },
    ],
    caughtBy: simulationHaving('retention'),
  },
  {
    bug: 'the start of a sink without a checkpoint is not kept',
    harm: 'a restart before the first event begins elsewhere: with `latest`, behind what came meanwhile',
    file: 'src/pipeline/lane-follower.ts',
    edits: [
      {
        find: 'await lane.apply({ moves: [], offset, events: [], parked: [], beginning: encodeBeginning(beginning) })\n',
        replace: '',
      },
    ],
    caughtBy: test(
      'pipeline/applier',
      'start: latest holds its place from the beginning: a restart before the first event loses nothing',
    ),
  },
  {
    bug: 'events of another source are dropped',
    harm: 'two databases share a topic, and the replica follows one of them only',
    file: 'src/pipeline/lane-plan.ts',
    edits: [
      {
        find: '(rules.sources !== null && !rules.sources.has(event.source))',
        replace: '!(rules.sources ?? new Set([...state.chains.keys(), event.source].slice(0, 1))).has(event.source)',
      },
    ],
    caughtBy: simulationHaving('other source'),
  },
  {
    bug: 'one chain for all sources of a partition',
    harm: "one source's events are gaps in, or stale behind, the other's",
    file: 'src/pipeline/lane-plan.ts',
    edits: [
      {
        find: 'const chain = chains.get(event.source) ??',
        replace: 'const chain = chains.values().next().value ??',
      },
    ],
    caughtBy: simulationHaving('other source'),
  },
  {
    bug: 'a later event of a parked key is applied',
    harm: 'it overtakes the one that waits, which overwrites it when it is redriven',
    file: 'src/pipeline/lane-plan.ts',
    edits: [
      { find: 'const waits = order !== null && (parkedKeys ?? state.parked).has(order)', replace: "const waits = order === ''" },
    ],
    caughtBy: simulation,
  },
  {
    bug: 'in the batch that parks a key its later events are applied',
    harm: 'the same, within one batch',
    file: 'src/pipeline/lane-plan.ts',
    edits: [{ find: 'parkedKeys.add(order ?? orderOf(event))\n', replace: '' }],
    caughtBy: simulation,
  },
  {
    bug: 'a placeholder is applied as an event',
    harm: 'an event without its payload empties the row, or is passed over',
    file: 'src/pipeline/lane-plan.ts',
    edits: [
      {
        find: '(event.placeholder === null || passed ? null : placeholderVerdict',
        replace: "(event.placeholder !== '' ? null : placeholderVerdict",
      },
    ],
    caughtBy: simulation,
  },
  {
    bug: 'an event that the sink refuses is passed over',
    harm: 'it is gone without a word',
    file: 'src/pipeline/lane-plan.ts',
    edits: [
      {
        find: '      parked.push({ event, offset: record.offset, reason: refused.park })\n',
        replace: '',
      },
    ],
    caughtBy: simulation,
  },
  {
    bug: 'of two conflicts that wait for each other both are final',
    harm: 'the sound one is parked with the one that is to blame',
    file: 'src/pipeline/applier.ts',
    edits: [{ find: 'return at === null || !precedes(stuck, at)', replace: 'return true' }],
    caughtBy: simulation,
  },
  {
    bug: 'a constraint conflict is final at once',
    harm: 'a unique value that another partition is about to give up parks a key that is sound',
    file: 'src/pipeline/applier.ts',
    edits: [{ find: 'if (start !== end && offset < end && ', replace: 'if (start !== end && offset < 0n && ' }],
    caughtBy: simulation,
  },
]
