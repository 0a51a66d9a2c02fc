import { type Mutant, simulation, simulationHaving, test } from '../mutant.ts'

/** In the relay: what it publishes, remembers and confirms. */
export const RELAY_MUTANTS: readonly Mutant[] = [
  {
    bug: 'the end + 1 is confirmed',
    harm: 'the next transaction, whose commit begins at that very end, never comes again',
    file: 'src/pipeline/state-keeper.ts',
    edits: [{ find: 'session.confirm(intent)\n', replace: 'session.confirm(intent + 1n)\n' }],
    caughtBy: simulation,
  },
  {
    bug: 'what was received is confirmed',
    harm: 'whatever the queue has not acknowledged yet is lost with the process',
    file: 'src/pipeline/relay-session.ts',
    edits: [
      {
        find: `await failpoint('read')\n`,
        replace: `await failpoint('read')\n        if (batch.end !== null) keeper.covered(batch.end, batch.changes.length > 0)\n`,
      },
    ],
    caughtBy: simulation,
  },
  {
    bug: 'the intent is written after the confirm',
    harm: 'a slot that somebody moved cannot be told from one that was confirmed by us',
    file: 'src/pipeline/state-keeper.ts',
    edits: [
      {
        find: 'await keeper.record()\n      await failpoint(',
        replace: 'session.confirm(intent)\n      await keeper.record()\n      await failpoint(',
      },
    ],
    caughtBy: simulation,
  },
  {
    bug: 'one tail for all partitions',
    harm: 'what one partition lacks is dropped because another one is ahead',
    file: 'src/pipeline/relay-plan.ts',
    edits: [
      {
        find: 'if (prev !== null && change.position <= prev) continue',
        replace: `const all = [...tails.values()].flat().flatMap(({ position }) => position ?? [])
    if (all.some((position) => change.position <= position)) continue`,
      },
    ],
    caughtBy: simulation,
  },
  {
    bug: 'changes are skipped by LSN alone',
    harm: 'the rest of a transaction of which one row was published is taken for published',
    file: 'src/pipeline/relay-plan.ts',
    edits: [
      { find: 'change.position <= prev) continue', replace: 'change.position.slice(0, 25) <= prev.slice(0, 25)) continue' },
    ],
    caughtBy: simulation,
  },
  {
    bug: 'what stands in the queue already is published again',
    harm: 'events after their successors: a sink that has not seen them takes the old ones for new',
    file: 'src/pipeline/relay-plan.ts',
    edits: [{ find: 'if (prev !== null && change.position <= prev) continue', replace: '' }],
    caughtBy: simulation,
  },
  {
    bug: 'an event that cannot be published is dropped',
    harm: 'it is gone without a word, and the chain is whole',
    file: 'src/pipeline/relay-plan.ts',
    edits: [{ find: 'unpublishable.push(fault)\n', replace: 'unpublishable.push(fault)\n      continue\n' }],
    caughtBy: simulation,
  },
  {
    bug: 'two requests are in flight',
    harm: 'the later one can be written first, or without the earlier one',
    file: 'src/pipeline/relay-session.ts',
    edits: [
      {
        find: `plan.acknowledge(planned, await sent)\n`,
        replace: `void sent.then((offsets) => plan.acknowledge(planned, offsets)).catch((error: unknown) => interrupts.fail(error))\n`,
      },
    ],
    caughtBy: simulation,
  },
  {
    bug: 'a publish whose outcome is unknown is taken for done',
    harm: 'what was not written is confirmed',
    file: 'src/pipeline/relay-session.ts',
    edits: [
      {
        find: `plan.acknowledge(planned, await sent)\n`,
        replace: `await sent.then(
              (offsets) => plan.acknowledge(planned, offsets),
              () => {},
            )\n`,
      },
    ],
    caughtBy: simulation,
  },
  {
    bug: "a zombie's state record wins",
    harm: 'intent and tails go back: the relay halts for a loss that never was, or chains to what is long passed',
    file: 'src/core/relay-state.ts',
    edits: [
      {
        find: 'if (latest === null || state.session > latest.session || (state.session === latest.session && isFurther(state, latest)))',
        replace: 'if (latest === null || state.session < latest.session)',
      },
    ],
    caughtBy: simulation,
  },
  {
    bug: 'sessions of one number share a record',
    harm: 'the late first write of the one replaces what the other has confirmed since',
    file: 'src/core/relay-state.ts',
    edits: [{ find: 'return writer === undefined ? key : `${key}/${writer}`', replace: 'return key' }],
    caughtBy: simulation,
  },
  {
    bug: 'the copy of the state is not compared',
    harm: 'a queue that lost its end with the state in it is bridged',
    file: 'src/core/relay-state.ts',
    edits: [
      {
        find: 'if (copy.session > queue.session || (copy.session === queue.session && copy.intent > queue.intent))',
        replace: 'if (copy.session < 0)',
      },
    ],
    caughtBy: test('core/relay-state', 'halts when the copy is of a later session'),
  },
  {
    bug: 'a queue that lost its state goes on from the copy',
    harm: 'the copy is older: what came since is bridged, or the halt names another cause',
    file: 'src/core/relay-state.ts',
    edits: [
      { find: 'if (queue === null)\n', replace: 'if (queue === null && copy !== null) return copy\n  if (queue === null)\n' },
    ],
    caughtBy: simulationHaving('state lost'),
  },
  {
    bug: 'the fingerprint is not checked',
    harm: 'keys move to other partitions or topics in the middle of their history',
    file: 'src/core/relay-state.ts',
    edits: [{ find: 'if (queue.fingerprint !== fingerprint && queue.drained === null)', replace: "if (fingerprint === '')" }],
    caughtBy: simulationHaving('fingerprint changed'),
  },
  {
    bug: 'a publication that was made anew is not noticed',
    harm: 'Postgres 18 skips, without a word, what was committed in between',
    file: 'src/core/relay-state.ts',
    edits: [{ find: 'if (queue.publication !== identity.publication)', replace: "if (identity.publication === '')" }],
    caughtBy: simulationHaving('publication remade'),
  },
  {
    bug: 'a slot beyond the intent is not noticed',
    harm: 'what was committed between the old slot and the new one is lost',
    file: 'src/core/failover.ts',
    edits: [{ find: 'if (identity.confirmed > intent)', replace: 'if (identity.confirmed < 0n)' }],
    caughtBy: simulationHaving('slot recreated'),
  },
  {
    bug: 'a transaction is covered by the first of its rows',
    harm: 'one that spans two batches is confirmed after the first',
    file: 'src/pipeline/relay-session.ts',
    edits: [
      {
        find: 'if (batch.end !== null) keeper.covered(batch.end, batch.changes.length > 0)\n',
        replace: `const last = batch.changes.at(-1)
        const commit = last === undefined ? batch.end : BigInt(\`0x\${last.position.slice(9, 25)}\`) + 1n
        if (commit !== null) keeper.covered(commit, batch.changes.length > 0)\n`,
      },
    ],
    caughtBy: simulation,
  },
]

/** In the search for a partition's tail: PROTOCOL 2.3 rule 2, and each of its four checks. */
export const TAIL_MUTANTS: readonly Mutant[] = [
  {
    bug: 'the tail is the last record',
    harm: 'a loss in the broker is bridged; a late run of a zombie becomes the tail',
    file: 'src/core/tail.ts',
    edits: [
      { find: 'if (position !== null && ours.position <= position) return search\n', replace: '' },
      { find: 'if (ours.prev !== position && !search.trimmed)', replace: 'if (position === undefined)' },
    ],
    caughtBy: simulation,
  },
  {
    bug: 'the tail is what was recorded',
    harm: 'what a lost reply or a crash left behind is published again, chained to what stands before it',
    file: 'src/core/tail.ts',
    edits: [{ find: 'tail: { position: ours.position, offset } }', replace: 'tail: search.tail }' }],
    caughtBy: simulation,
  },
  {
    bug: '(i) a log that ends before the recorded offset is not noticed',
    harm: 'a queue that lost what it acknowledged is not noticed by a relay that runs and has nothing to publish',
    file: 'src/core/tail.ts',
    edits: [{ find: 'if (log.end <= recorded.offset)', replace: 'if (log.end < 0n)' }],
    caughtBy: simulation,
  },
  {
    bug: '(ii) another record at the recorded offset is not noticed',
    harm: 'the same, once others have been appended in its place',
    file: 'src/core/tail.ts',
    edits: [{ find: 'if (ours?.position !== recorded.position)', replace: 'if (recorded.position === null)' }],
    caughtBy: simulation,
  },
  {
    bug: '(ii) nothing at the recorded offset is not noticed',
    harm: 'the same, where offsets have holes',
    file: 'src/core/tail.ts',
    edits: [{ find: '&& range.start <= recorded.offset && !recordedSeen)', replace: '&& range.start < 0n && !recordedSeen)' }],
    caughtBy: simulation,
  },
  {
    bug: '(iii) what does not chain is taken for the tail',
    harm: 'a loss behind the recorded offset is bridged',
    file: 'src/core/tail.ts',
    edits: [{ find: 'if (ours.prev !== position && !search.trimmed)', replace: 'if (position === undefined)' }],
    caughtBy: test('core/tail', '(iii) what is read forward does not chain'),
  },
  {
    bug: '(iv) an acknowledgement below the one before it is not noticed',
    harm: 'a loss under a live session is bridged',
    file: 'src/core/tail.ts',
    edits: [{ find: 'if (baseOffset <= tail.offset)', replace: 'if (baseOffset < 0n)' }],
    caughtBy: simulationHaving('broker loss'),
  },
  {
    bug: 'a tail is lost to retention',
    harm: 'a quiet partition that retention has emptied founds its chain anew: whoever stands at the old one meets a gap',
    file: 'src/core/tail.ts',
    edits: [
      {
        find: '    trimmed,\n    tail: recorded,\n',
        replace: '    trimmed,\n    tail: trimmed ? { ...recorded, position: null } : recorded,\n',
      },
    ],
    caughtBy: simulation,
  },
  {
    bug: 'events of another source are taken for ours',
    harm: 'positions of two databases are compared: what is smaller is dropped as published',
    file: 'src/core/tail.ts',
    edits: [
      {
        find: 'const ours = event !== null && event.source === source ? event : null',
        replace: "const ours = source === '' ? null : event",
      },
    ],
    caughtBy: simulationHaving('other source'),
  },
]
