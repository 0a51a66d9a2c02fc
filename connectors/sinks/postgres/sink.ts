import type { SinkDeps } from '../../../src/core/connector.ts'
import { MillraceError } from '../../../src/core/errors.ts'
import type { Event } from '../../../src/core/event.ts'
import type { TopicPartition } from '../../../src/core/queue.ts'
import type { PartitionCheckpoint, Sink } from '../../../src/core/sink.ts'
import { DEFAULT_TOPIC } from '../../../src/core/topic-template.ts'
import { openBookkeeping } from './bookkeeping.ts'
import { readCatalog } from './catalog.ts'
import { bookkeepingStands, checkSink } from './check.ts'
import { openPool, openSession } from './connection.ts'
import { openCopies } from './copies.ts'
import { copySchema } from './copy-tables.ts'
import { bookkeepingSql } from './ddl.ts'
import { sinkError } from './failure.ts'
import { openLane } from './lane.ts'
import {
  type Feed,
  feedsOfTopic,
  type KeptMapping,
  keptMapping,
  mappingChanges,
  mergedMapping,
  notReady,
  resolveFeeds,
  rowTraits,
} from './mapping.ts'
import { forgetMarkers } from './markers.ts'
import type { PostgresSinkSettings } from './options.ts'
import { openParker } from './park.ts'
import { openParking } from './parking.ts'
import { eventFields, type Planning, rejected } from './plan.ts'
import { unstalling, unstallingLane } from './stalled.ts'
import { type FeedStatements, feedStatements } from './statements.ts'

/** how often old delete markers are looked for, while events are applied (ms) */
const FORGET_INTERVAL = 600_000

export function openPostgresSink(settings: PostgresSinkSettings, deps: SinkDeps): Sink {
  const { schema, unknownFields, markerRetention } = settings
  const { sink: name, pipeline, log, topicTemplate = DEFAULT_TOPIC } = deps
  const applicationName = `millrace ${pipeline}/${name}`
  const pool = openPool(settings, applicationName)
  const unstall = unstalling(pool, settings.idleInTransactionTimeout)
  const bookkeeping = openBookkeeping(pool, schema, name, pipeline)
  const parker = settings.parking === false ? null : openParker(pool, schema, name, settings.parking)
  /** by target: the source it is fed by */
  const sources = new Map<string, string>()
  let forgetting: Promise<void> | null = null
  let forgotAt = 0

  /** The feeds as the replica's tables are now, held against the mapping that the sink was fed with. */
  async function compared() {
    const tables = settings.tables.map(({ into }) => into)
    const feeds = resolveFeeds(settings, await readCatalog(pool, tables))
    const kept = new Map((await bookkeeping.targets()).map((target) => [target.target, target]))
    const fed = (await bookkeeping.checkpoints()).some(({ positions }) => positions.size > 0)
    const changes: string[] = []
    const news = new Map<string, KeptMapping>()
    const targets = new Set(feeds.map(({ target }) => target))
    for (const target of targets) {
      const before = kept.get(target.name)
      const now = keptMapping(target, feeds)
      if (before === undefined) {
        if (fed && kept.size > 0) changes.push(`${target.name} was not fed`)
        else news.set(target.name, now)
        continue
      }
      const changed = mappingChanges(target.name, before.mapping, now)
      changes.push(...changed)
      const merged = mergedMapping(before.mapping, now)
      if (changed.length === 0 && JSON.stringify(merged) !== JSON.stringify(before.mapping)) news.set(target.name, merged)
      if (before.source !== null) sources.set(target.name, before.source)
    }
    const names = new Set([...targets].map((target) => target.name))
    for (const target of kept.keys()) if (!names.has(target)) changes.push(`${target} was fed`)
    return { feeds, changed: changes.length > 0 ? mappingChanged(name, changes) : null, news }
  }

  async function resolved(): Promise<readonly Feed[]> {
    const { feeds, changed, news } = await compared()
    if (changed !== null) throw changed
    for (const [target, mapping] of news) await bookkeeping.keepTarget(target, mapping)
    return feeds
  }

  function planningOf(
    feeds: readonly Feed[],
    partition: TopicPartition,
    statements: (feed: Feed) => FeedStatements = (feed) => feedStatements(feed, schema),
  ): Planning {
    const own = feedsOfTopic(feeds, partition.topic, topicTemplate)
    if (own.length === 0) throw notReady(`no table of the sink ${name} is fed from the topic ${partition.topic}`)
    const planned = own.map((feed) => ({ feed, statements: statements(feed) }))
    planned.sort((a, b) => (a.feed.target.name < b.feed.target.name ? -1 : 1))
    return {
      sink: name,
      partition,
      feeds: planned,
      unknownFields(feed, event, fields) {
        if (unknownFields === 'halt')
          throw rejected(partition, feed, event, `its payload has fields that nothing takes: ${fields.join(', ')}`)
        for (const field of fields) feed.reader.passOver(field)
        log.info(
          { aggregate: feed.from, type: event.type, fields },
          'payloads have fields that no table takes; they are passed over',
        )
      },
    }
  }

  async function admit({ feeds, partition }: Planning, events: readonly Event[]): Promise<void> {
    for (const { feed } of feeds)
      for (const event of events) {
        const target = feed.target.name
        if (sources.get(target) === event.source || feed.operations.get(event.type) === 'ignore') continue
        let source = sources.get(target)
        if (source === undefined) sources.set(target, (source = await bookkeeping.sourceOf(target, event.source)))
        if (source !== event.source) throw sourceRefused(partition, target, source, event)
      }
  }

  function forgetOld(): void {
    if (forgetting !== null || deps.now() - forgotAt < FORGET_INTERVAL) return
    forgotAt = deps.now()
    forgetting = forgetMarkers(pool, schema, name, markerRetention)
      .then((count) => {
        if (count > 0) log.info({ count }, 'old delete markers were forgotten')
      })
      .catch((error: unknown) =>
        log.warn({ err: sinkError(error) }, 'old delete markers could not be forgotten; they are looked for again'),
      )
      .finally(() => {
        forgetting = null
      })
  }

  return {
    parking:
      parker === null
        ? null
        : openParking({ pool, schema, sink: name, admit, planning: async (place) => planningOf(await resolved(), place) }),
    copies: openCopies({
      pool,
      sink: name,
      pipeline,
      schemas: { book: schema, copy: copySchema(schema) },
      rows: rowTraits(settings),
      topicTemplate,
      mapped: async (remap) => {
        const { feeds, changed } = await compared()
        if (changed !== null && !remap) throw changed
        return { feeds, remapped: changed !== null }
      },
      planning: planningOf,
      connect: () => openSession(settings, applicationName),
      unstall,
    }),
    redeliver: null,
    traits: { name: 'postgres', effect: 'exactly-once', checkpoints: true },

    check: () => checkSink(pool, settings, `sinks.${name}`, async () => (await compared()).changed),

    async init() {
      try {
        // made before by a role with more rights (`init --sql sink`): even "if not exists" asks for the right to create
        if (await bookkeepingStands(pool, schema)) return
        for (const statement of bookkeepingSql(schema)) await pool.query(statement)
      } catch (error) {
        throw sinkError(error)
      }
    },

    claim: (partition) =>
      unstall(async () => {
        try {
          const planning = planningOf(await resolved(), partition)
          const claim = await bookkeeping.claim(partition)
          // a rebuild that set its mark since takes back what was claimed before it, not what is claimed now
          if ((await bookkeeping.targets()).some(({ mapping }) => mapping.rebuilding)) await resolved()
          if (parker === null && claim.checkpoint.parked.size > 0) throw stillParked(name, claim.checkpoint)
          const lane = openLane(
            { pool, bookkeeping, schema, planning, parker, admit: (events) => admit(planning, events), applied: forgetOld },
            claim,
          )
          return unstallingLane(lane, unstall)
        } catch (error) {
          throw sinkError(error)
        }
      }),

    async checkpoints() {
      try {
        return await bookkeeping.checkpoints()
      } catch (error) {
        throw sinkError(error)
      }
    },

    async close() {
      await forgetting
      await pool.end()
    },
  }
}

function mappingChanged(sink: string, changes: readonly string[]): MillraceError {
  return new MillraceError(
    'MILLRACE_MAPPING_CHANGED',
    `the mapping of the sink ${sink} is not the one its rows were written by: ${changes.join('; ')}`,
    {
      remedy: `put the mapping back, or bring the rows to the new one: millrace rebuild ${sink}`,
      fields: { sink },
    },
  )
}

/** what was parked while parking was on: its later events must not overtake it */
function stillParked(sink: string, { topic, partition, parked }: PartitionCheckpoint): MillraceError {
  return new MillraceError(
    'MILLRACE_SINK_NOT_READY',
    `the sink ${sink} is to park nothing, and of ${topic}/${partition} ${parked.size} keys are parked from before`,
    {
      remedy: `take "parking: false" out, millrace parked redrive ${sink} --all, and put it back when nothing is left`,
      fields: { sink, topic, partition },
    },
  )
}

function sourceRefused(partition: TopicPartition, target: string, source: string, event: Event): MillraceError {
  return new MillraceError(
    'MILLRACE_SOURCE_REFUSED',
    `the event ${event.position} of ${partition.topic}/${partition.partition} comes from the source ${event.source}, and ${target} is fed by ${source}: their positions do not compare`,
    {
      remedy: `leave it out with sources: [${source}], or feed a table of its own from it`,
      fields: { ...eventFields(partition, event), table: target },
    },
  )
}
