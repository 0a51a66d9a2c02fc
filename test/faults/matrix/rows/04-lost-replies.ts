import { losingAnswers, PRODUCE } from '../kafka-taps.ts'
import { defineRow, over } from '../row.ts'

export const lostReplies = defineRow({
  row: '4',
  fault: 'the answer to a produce request is lost, with its connection or alone',
  when: 'the broker has written the records',
  runs: over([15, 18], ['kafka']),
  async run(ctx) {
    const trial = await ctx.trial()
    if (trial.kafka === null) throw new Error('not Kafka')
    const { kafka } = trial
    const wanted = ctx.times(25, 100)
    let lost = 0
    let passing = 2
    const relay = trial.relay({ hasty: true })
    trial.applier()
    await relay.heard(/^running$/)
    const { promise: enough, resolve } = Promise.withResolvers<void>()
    kafka.tap(
      losingAnswers(PRODUCE, () => {
        // a session's own record and some batches get through: each loss then meets a state that has moved
        if (lost === wanted || passing-- > 0) return 'pass'
        passing = 1 + ctx.pick(5)
        ctx.injected()
        if (++lost === wanted) resolve()
        // alone: the relay waits for its answer until its patience ends, which takes seconds
        return lost % 50 === 0 ? 'lose' : 'cut'
      }),
    )
    for (const front of kafka.fronts) front.cut()
    await Promise.race([enough, relay.ended])
    const { duplicates } = await trial.judge()
    // the broker had answered, so the next session reads all of it and writes none of it again
    if (duplicates > 0)
      throw new Error(`${duplicates} records stand in the topic again, though each had been written before its session ended`)
    ctx.checked('no record is written twice')
  },
})
