import { expect, test } from 'vitest'
import { configs, kafkaAnswers, kafkaBatches, localBatches, payloads, relayStates, replicationStream } from './fuzz/corpus.ts'
import { fuzz, MS, SEED } from './fuzz/fuzz.ts'
import type { Target } from './fuzz/targets.ts'

/**
 * Each reader of bytes that somebody else wrote is given damaged ones: it ends in time, within a heap of 192 MB, with what it
 * read or an error of ours. 2 s a target; `MILLRACE_FUZZ_MS=600000` for a night.
 */
const CORPORA: Readonly<Record<Target, () => readonly Buffer[] | Promise<readonly Buffer[]>>> = {
  replication: replicationStream,
  kafkaAnswers,
  kafkaRecords: kafkaBatches,
  localBatch: localBatches,
  relayState: relayStates,
  payload: payloads,
  config: configs,
}

test.each(Object.keys(CORPORA) as Target[])(
  `%s outlives whatever it is given (seed ${SEED})`,
  async (target) => {
    const { cases, refused } = await fuzz(target, await CORPORA[target]())
    console.info(`${target}: ${cases} cases, ${refused} refused, seed ${SEED}`)
    // a target that refuses nothing reads something else than it should
    expect(refused).toBeGreaterThan(0)
  },
  MS + 60_000,
)
