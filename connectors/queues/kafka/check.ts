import { MillraceError } from '../../../src/core/errors.ts'
import type { Finding } from '../../../src/core/finding.ts'
import type { Cluster, PartitionMetadata } from './cluster.ts'
import { brokerSettings, type Settings, topicSettings } from './configs.ts'
import type { KafkaSettings } from './options.ts'
import { createCommand, eventTopic, findTopics } from './topics.ts'

const SUBJECT = 'queue'
const HOUR = 3_600_000
const DAY = 24 * HOUR
/** a batch of the size we aim at, and Kafka's own default */
const USUAL_MAX_BATCH = 1024 * 1024
const TOPIC_SETTINGS = [
  'cleanup.policy',
  'retention.ms',
  'min.insync.replicas',
  'unclean.leader.election.enable',
  'max.message.bytes',
]

/** What a person should know of the cluster and the topics before events flow. */
export async function checkKafka(
  cluster: Cluster,
  settings: KafkaSettings,
  names: readonly string[],
): Promise<readonly Finding[]> {
  const findings: Finding[] = []
  try {
    findings.push(...(await brokers(cluster)))
    if (findings.some(({ level }) => level === 'blocker')) return findings
    const found = await findTopics(cluster, names)
    const nodes = cluster.nodes.size
    findings.push(nodes === 1 ? finding('warning', ONE_BROKER, REPLICATE) : ok(`Kafka answers, ${nodes} brokers`))
    const known = Math.max(nodes, cluster.named)
    for (const name of names) if (!name.endsWith('*') && !found.has(name)) findings.push(missing(name, settings, known))
    const configs = await topicSettings(cluster, [...found.keys()], TOPIC_SETTINGS)
    for (const name of found.keys())
      findings.push(
        ...topic(
          name,
          await cluster.partitions(name),
          configs.get(name) ?? null,
          eventTopic(name, settings.topics, nodes).replication,
        ),
      )
    findings.push(...(await brokerDefaults(cluster)))
  } catch (error) {
    findings.push(failed(error))
  }
  return findings
}

const ONE_BROKER =
  'the cluster has one broker: Kafka acknowledges before it writes to disk and relies on replicas, so a power cut can lose acknowledged events'
const REPLICATE = 'use 3 brokers with replication 3 and min.insync.replicas 2 where that matters'

/** Those that cannot be used; one that answers is enough to begin with. */
async function brokers(cluster: Cluster): Promise<readonly Finding[]> {
  const probed = [...(await cluster.probe()).values()]
  const level = probed.includes(null) ? 'warning' : 'blocker'
  return probed.filter((failure) => failure !== null).map((failure) => ({ ...failed(failure), level }))
}

function missing(name: string, { topics }: KafkaSettings, nodes: number): Finding {
  const plan = eventTopic(name, topics, nodes)
  if (topics.create) return ok(`the topic ${name} will be made: ${plan.partitions} partitions, replication ${plan.replication}`)
  return finding('blocker', `the topic ${name} does not exist, and queue.topics.create is false`, createCommand(plan))
}

function topic(name: string, partitions: readonly PartitionMetadata[], settings: Settings, wanted: number): readonly Finding[] {
  const findings: Finding[] = []
  const alter = (setting: string): string =>
    `kafka-configs.sh --bootstrap-server … --alter --entity-type topics --entity-name ${name} --add-config ${setting}`
  const replication = Math.min(...partitions.map(({ replicas }) => replicas.length))
  const leaderless = partitions.filter(({ leader }) => leader === -1)
  if (leaderless.length > 0)
    findings.push(
      finding(
        'blocker',
        `${name}: ${leaderless.length} of ${partitions.length} partitions have no leader`,
        'bring the brokers back',
      ),
    )
  if (replication < wanted)
    findings.push(
      finding(
        'warning',
        `${name}: replication is ${replication} and could be ${wanted}: the loss of a broker can ${replication === 1 ? 'lose acknowledged events' : 'stop the stream'}`,
        `add replicas (kafka-reassign-partitions.sh), or set queue.topics.replication to ${replication}: a topic keeps those it was made with`,
      ),
    )
  if (settings === null) {
    findings.push(
      finding(
        'warning',
        `${name}: its settings may not be read, so retention and safety were not checked`,
        'give the principal the ACL DescribeConfigs',
      ),
    )
    return findings
  }
  const setting = (name: string): string => settings.get(name) ?? ''
  if (setting('cleanup.policy').includes('compact'))
    findings.push(
      finding(
        'blocker',
        `${name}: cleanup.policy is ${setting('cleanup.policy')}: compaction removes events`,
        alter('cleanup.policy=delete'),
      ),
    )
  const retention = Number(setting('retention.ms'))
  if (retention >= 0 && retention < HOUR)
    findings.push(
      finding(
        'blocker',
        `${name}: retention.ms is ${retention}, less than an hour: events would go before their sinks have them`,
        alter(`retention.ms=${7 * DAY}`),
      ),
    )
  else if (retention >= 0 && retention < DAY)
    findings.push(
      finding(
        'warning',
        `${name}: events stay for ${inWords(retention)}; a sink that stands still longer must be rebuilt`,
        alter(`retention.ms=${7 * DAY}`),
      ),
    )
  else
    findings.push(
      ok(`${name}: ${partitions.length} partitions, events stay ${retention < 0 ? 'for ever' : `for ${inWords(retention)}`}`),
    )
  if (setting('unclean.leader.election.enable') === 'true')
    findings.push(
      finding(
        'blocker',
        `${name}: unclean.leader.election.enable is true: an election can drop acknowledged events`,
        alter('unclean.leader.election.enable=false'),
      ),
    )
  const inSync = Number(setting('min.insync.replicas'))
  if (replication > 1 && inSync < 2)
    findings.push(
      finding(
        'blocker',
        `${name}: min.insync.replicas is ${inSync} of ${replication} replicas: the loss of one broker can lose acknowledged events`,
        alter('min.insync.replicas=2'),
      ),
    )
  const behind = partitions.filter(({ isr }) => isr.length < inSync)
  if (behind.length > 0)
    findings.push(
      finding(
        'blocker',
        `${name}: ${behind.length} partitions have fewer replicas in sync than min.insync.replicas (${inSync}): nothing can be published`,
        'bring the brokers back',
      ),
    )
  const maxBatch = Number(setting('max.message.bytes'))
  if (maxBatch < USUAL_MAX_BATCH)
    findings.push(
      finding(
        'warning',
        `${name}: max.message.bytes is ${maxBatch}: larger events cannot be published`,
        alter(`max.message.bytes=${USUAL_MAX_BATCH + 12}`),
      ),
    )
  return findings
}

/** The state topic and topics to come inherit what they do not set themselves. */
async function brokerDefaults(cluster: Cluster): Promise<readonly Finding[]> {
  const [node] = cluster.nodes.keys()
  if (node === undefined) return []
  const settings = await brokerSettings(cluster, node, ['auto.create.topics.enable'])
  if (settings?.get('auto.create.topics.enable') !== 'true') return []
  return [
    finding(
      'warning',
      'the brokers make topics that somebody asks for (auto.create.topics.enable), with their own defaults; Millrace never asks so, other clients may',
      'set auto.create.topics.enable=false on the brokers',
    ),
  ]
}

function inWords(ms: number): string {
  return ms >= 2 * DAY
    ? `${Math.floor(ms / DAY)} days`
    : ms >= 2 * HOUR
      ? `${Math.floor(ms / HOUR)} hours`
      : `${Math.floor(ms / 60_000)} minutes`
}

function ok(message: string): Finding {
  return { level: 'ok', subject: SUBJECT, message }
}

function finding(level: 'blocker' | 'warning', message: string, remedy: string): Finding {
  return { level, subject: SUBJECT, message, remedy }
}

function failed(error: unknown): Finding {
  const { message } = error as Error
  const remedy = error instanceof MillraceError ? error.remedy : undefined
  return { level: 'blocker', subject: SUBJECT, message, ...(remedy && { remedy }) }
}
