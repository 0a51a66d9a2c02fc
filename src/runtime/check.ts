import { MillraceError } from '../core/errors.ts'
import type { Finding } from '../core/finding.ts'
import type { Queue } from '../core/queue.ts'
import { latestState, statePrefix } from '../core/relay-state.ts'
import { topicsOf } from '../core/topic-template.ts'
import type { PostgresSource } from '../postgres/source.ts'
import type { ParsedConfig } from './config-schema.ts'
import { pendingGap } from './new-epoch.ts'
import { fingerprintOf, openQueue, openSource, prepareSink, type Surroundings } from './open.ts'
import { unsecured } from './unsecured.ts'

/** Everything that a person should know before, or while, the pipeline runs: the source, the queue and every sink. */
export async function checkPipeline(config: ParsedConfig, around: Surroundings): Promise<readonly Finding[]> {
  const findings: Finding[] = [...unsecured(config)]
  let source: PostgresSource | null = null
  let queue: Queue | null = null
  try {
    if (config.source !== undefined)
      await looking('source', findings, async () => {
        source = await openSource(config, around)
        return source.check()
      })
    if (config.queue !== undefined)
      await looking('queue', findings, async () => {
        queue = await openQueue(config, around)
        return queue.check(await topicsOfPipeline(config, around))
      })
    for (const name of Object.keys(config.sinks))
      await looking(`sinks.${name}`, findings, async () => {
        const sink = await (await prepareSink(config, name, around)).open()
        return sink.check().finally(() => sink.close())
      })
    if (source !== null && queue !== null) {
      const both = { source: source as PostgresSource, queue: queue as Queue }
      await looking('stream', findings, () => checkStream(config, both, around))
    }
  } finally {
    await Promise.allSettled([(source as PostgresSource | null)?.close(), (queue as Queue | null)?.close()])
  }
  return findings
}

/** What can be wrong between the two: a stream that one side does not know, or that was read otherwise. */
async function checkStream(
  config: ParsedConfig,
  { source, queue }: { readonly source: PostgresSource; readonly queue: Queue },
  around: Surroundings,
): Promise<readonly Finding[]> {
  const found: Finding[] = []
  const limit = config.source?.outbox.maxEventBytes
  if (limit !== undefined && limit > queue.traits.maxRecordBytes)
    found.push({
      level: 'blocker',
      subject: 'source.outbox.maxEventBytes',
      message: `the outbox takes ${limit} bytes, the queue ${queue.traits.maxRecordBytes} in one record: what lies between could never be relayed`,
      remedy: `set it to at most ${queue.traits.maxRecordBytes - 4_096}, or raise the queue's limit`,
    })
  const queued = latestState(await queue.state.read(statePrefix(source.name)))
  const copied = await source.stateCopy.read()
  if (queued === null && copied === null)
    found.push({
      level: 'warning',
      subject: 'stream',
      message: 'the pipeline has not been initialised yet',
      remedy: 'run: millrace init',
    })
  else if (queued === null || copied === null)
    found.push({
      level: 'blocker',
      subject: 'stream',
      message: `the ${queued === null ? 'queue' : 'database'} does not know the stream that the ${queued === null ? 'database' : 'queue'} holds`,
      remedy: 'check that both sides are the right ones; if nothing was ever relayed, run: millrace init',
    })
  else if (pendingGap(queued) !== null)
    found.push({
      level: 'blocker',
      subject: 'stream',
      message: 'a refill was begun and not finished: its events stand before all that follows',
      remedy: 'run: millrace resume --refill --yes',
    })
  else if (queued.fingerprint !== fingerprintOf(config, around))
    found.push({
      level: queued.drained === null ? 'blocker' : 'warning',
      subject: 'stream',
      message: `the outbox mapping, the topic template or the partitioner is not what the stream ${queued.drained === null ? 'under way' : 'that was drained'} was begun with`,
      remedy:
        queued.drained === null
          ? 'set them back, or run millrace drain with the old settings first'
          : 'the next relay goes on with the new settings; if that is not meant, set them back',
    })
  else found.push({ level: 'ok', subject: 'stream', message: `${queued.streamId}, session ${queued.session}` })
  return found
}

/** as `Queue.topics` takes them */
async function topicsOfPipeline(config: ParsedConfig, around: Surroundings): Promise<readonly string[]> {
  const template = config.queue?.topics.name ?? ''
  if (config.source !== undefined || Object.keys(config.sinks).length === 0) return topicsOf(template, null)
  const prepared = await Promise.all(Object.keys(config.sinks).map((name) => prepareSink(config, name, around)))
  return [...new Set(prepared.flatMap((sink) => sink.topics))]
}

/** a check that fails is a finding too; a config that is wrong is the caller's to correct first */
async function looking(subject: string, findings: Finding[], look: () => Promise<readonly Finding[]>): Promise<void> {
  try {
    findings.push(...(await look()))
  } catch (error) {
    if (error instanceof MillraceError && error.code === 'MILLRACE_CONFIG_INVALID') throw error
    const remedy = error instanceof MillraceError ? error.remedy : undefined
    findings.push({ level: 'blocker', subject, message: (error as Error).message, ...(remedy !== undefined && { remedy }) })
  }
}
