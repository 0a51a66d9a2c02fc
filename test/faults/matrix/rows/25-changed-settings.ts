import { ended } from '../ended.ts'
import { explains } from '../halt.ts'
import { defineRow, over } from '../row.ts'

export const fingerprintChanged = defineRow({
  row: '25',
  fault: 'the outbox mapping or the topic template is changed',
  when: 'not drained',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial()
    trial.applier()
    for (let left = ctx.times(1, 4); left > 0; left--) {
      const relay = trial.relay()
      await relay.heard(/^running$/)
      await trial.transactions(40)
      await relay.kill(ctx.random() < 0.5 ? 'SIGKILL' : 'SIGTERM')
      const changed = trial.relay({ fingerprint: `another-${left}` })
      ctx.injected()
      explains(await changed.halted(), {
        code: 'MILLRACE_FINGERPRINT_CHANGED',
        happened: /the outbox mapping, the topic template or the partitioner changed/,
        safe: /nothing is lost/,
        command: /millrace drain/,
      })
    }
    ctx.checked('the relay halts before it publishes under the new settings, and goes on with the old ones')
    await trial.judge()
  },
})

export const mappingChanged = defineRow({
  row: '25',
  fault: 'the sink’s mapping is changed',
  when: 'not drained',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial()
    trial.relay()
    for (let left = ctx.times(1, 2); left > 0; left--) {
      const applier = trial.applier()
      await applier.heard(/^running$/)
      await trial.applied()
      await applier.kill('SIGTERM')
      const changed = trial.applier({ erased: 'ignore' })
      ctx.injected()
      const halt = await changed.halted(60_000)
      if (halt.code !== 'MILLRACE_MAPPING_CHANGED') throw new Error(`halted with ${halt.code}: ${halt.message}`)
      await changed.kill('SIGTERM')
    }
    ctx.checked('the sink halts before it applies under the new mapping, and goes on with the old one')
    await trial.judge()
  },
})

export const drained = defineRow({
  row: '25',
  fault: 'the topic template is changed',
  when: 'drained with `millrace drain`, then `millrace init`',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial()
    const relay = trial.relay()
    const applier = trial.applier()
    await Promise.all([relay.heard(/^running$/), applier.heard(/^running$/)])
    await trial.transactions(100)
    trial.workload.rest()
    await trial.caughtUp()
    await Promise.all([relay.kill('SIGTERM'), applier.kill('SIGTERM')])
    await ended('drain', await trial.millrace(['drain']))
    const topics = { name: `${trial.pipeline.name}.moved.{aggregate_type}`, partitions: 5 }
    const changed = { queue: { ...trial.pipeline.queue, topics } }
    await ended('init', await trial.millrace(['init'], changed))
    ctx.injected()
    const program = await trial.millrace(['run'], changed)
    await program.said(/relay session began/)
    trial.workload.resume()
    await trial.transactions(100)
    await trial.applied()
    ctx.checked('after a drain the stream goes on with the new settings, and the replica follows')
    program.signal('SIGTERM')
    await ended('run', program)
  },
})
