import { setTimeout as sleep } from 'node:timers/promises'
import { MillraceError } from '../../../src/core/errors.ts'
import type { Cluster } from './cluster.ts'
import { answered } from './failure.ts'
import { rangeOf } from './offsets.ts'
import type { TopicSettings } from './options.ts'
import { ERROR } from './protocol-errors.ts'

/** A topic as it is to be made. */
export interface TopicPlan {
  readonly name: string
  readonly partitions: number
  readonly replication: number
  readonly settings: Readonly<Record<string, string>>
}

const DEFAULT_REPLICATION = 3
const DEFAULT_IN_SYNC = 2
/** ms between two looks at whether a new topic has its leaders */
const LEADER_PAUSE = 25

/** Everything that keeps events is said, so that no broker's default decides. */
export function eventTopic(name: string, options: TopicSettings, brokers: number): TopicPlan {
  const replication = options.replication ?? Math.min(DEFAULT_REPLICATION, brokers)
  return {
    name,
    partitions: options.partitions,
    replication,
    settings: {
      'cleanup.policy': 'delete',
      'retention.ms': String(options.retention),
      'retention.bytes': '-1',
      'min.insync.replicas': String(inSync(options, replication)),
      'unclean.leader.election.enable': 'false',
    },
  }
}

/** Small segments, cleaned early: the whole log is read at each start. */
export function stateTopic(name: string, options: TopicSettings, brokers: number): TopicPlan {
  const replication = options.replication ?? Math.min(DEFAULT_REPLICATION, brokers)
  return {
    name,
    partitions: 1,
    replication,
    settings: {
      'cleanup.policy': 'compact',
      'segment.bytes': String(1024 * 1024),
      'min.cleanable.dirty.ratio': '0.1',
      'min.insync.replicas': String(inSync(options, replication)),
      'unclean.leader.election.enable': 'false',
    },
  }
}

function inSync(options: TopicSettings, replication: number): number {
  return Math.min(options.minInsyncReplicas ?? DEFAULT_IN_SYNC, replication)
}

interface CreateTopicsAnswer {
  readonly topicErrors: readonly { readonly topic: string; readonly errorCode: number; readonly errorMessage?: string | null }[]
}

/**
 * Makes a topic that does not exist, and waits until each partition has a leader that answers.
 * @throws MILLRACE_QUEUE_NOT_READY with the command to run, where we may not make it or the cluster cannot;
 *   MILLRACE_QUEUE_UNREACHABLE while too few of the brokers that the config names serve
 */
export async function ensureTopic(cluster: Cluster, create: boolean, plan: (brokers: number) => TopicPlan): Promise<void> {
  const { name } = plan(1)
  const existing = (await cluster.metadata([name])).get(name)
  if (!existing) {
    const wanted = plan(Math.max(cluster.nodes.size, cluster.named))
    if (!create)
      throw new MillraceError('MILLRACE_QUEUE_NOT_READY', `the topic ${name} does not exist, and queue.topics.create is false`, {
        fields: { topic: name },
        remedy: createCommand(wanted),
      })
    awaitBrokers(cluster, wanted)
    await createTopic(cluster, wanted)
  }
  await untilLed(cluster, name)
}

/** A topic keeps the replicas it was made with, so a cluster that has half started is waited for. */
function awaitBrokers({ nodes, named }: Cluster, { name, replication }: TopicPlan): void {
  if (replication <= nodes.size || replication > named) return
  throw new MillraceError(
    'MILLRACE_QUEUE_UNREACHABLE',
    `the topic ${name} is to have ${replication} replicas, and of the ${named} brokers that the config names ${nodes.size} serve`,
    {
      fields: { topic: name },
      remedy: `start the other brokers; or say how many replicas it is to have (queue.topics.replication: ${nodes.size})`,
    },
  )
}

async function createTopic(cluster: Cluster, plan: TopicPlan): Promise<void> {
  const { name, partitions, replication, settings } = plan
  const topic = {
    topic: name,
    numPartitions: partitions,
    replicationFactor: replication,
    configEntries: Object.entries(settings).map(([name, value]) => ({ name, value })),
  }
  const options = { topics: [topic], validateOnly: false, timeout: cluster.requestTimeout }
  const doing = `to make the topic ${name}`
  const answer = await cluster.call<CreateTopicsAnswer>(await cluster.controller(), 'CreateTopics', options, doing)
  const { errorCode, errorMessage } = answer.topicErrors[0] ?? { errorCode: ERROR.REQUEST_TIMED_OUT }
  if (errorCode === ERROR.NONE || errorCode === ERROR.TOPIC_ALREADY_EXISTS) return
  const failure = answered(errorCode, `${doing}${errorMessage ? `: ${errorMessage}` : ''}`, { topic: name })
  throw new MillraceError(failure.code, failure.message, {
    fields: failure.fields,
    remedy: `${failure.remedy ?? 'set queue.topics to what the cluster can hold'}; or make it by hand: ${createCommand(plan)}`,
  })
}

/** The command that makes the topic as we would. */
export function createCommand({ name, partitions, replication, settings }: TopicPlan): string {
  const configs = Object.entries(settings).map(([name, value]) => `--config ${name}=${value}`)
  return `kafka-topics.sh --bootstrap-server … --create --topic ${name} --partitions ${partitions} --replication-factor ${replication} ${configs.join(' ')}`
}

async function untilLed(cluster: Cluster, topic: string): Promise<void> {
  const until = performance.now() + cluster.requestTimeout
  for (;;) {
    const partitions = (await cluster.metadata([topic])).get(topic)
    if (partitions?.every(({ leader }) => leader !== -1)) {
      // a leader that is named may still be on its way to being one: an answer shows that it is
      await Promise.all(partitions.map(({ partition }) => rangeOf(cluster, { topic, partition })))
      return
    }
    if (performance.now() > until)
      throw new MillraceError('MILLRACE_QUEUE_UNREACHABLE', `the topic ${topic} has partitions without a leader`, {
        fields: { topic },
        remedy: 'see which brokers are down (kafka-topics.sh --describe --unavailable-partitions)',
      })
    await sleep(LEADER_PAUSE)
  }
}

/** The existing topics of those named; a name that ends in `*` stands for all that begin so. */
export async function findTopics(cluster: Cluster, names: readonly string[]): Promise<ReadonlyMap<string, number>> {
  const prefixes = names.filter((name) => name.endsWith('*')).map((name) => name.slice(0, -1))
  const found = await cluster.metadata(prefixes.length > 0 ? null : names)
  const wanted = new Set(names)
  const matches = [...found].filter(([topic]) => wanted.has(topic) || prefixes.some((prefix) => topic.startsWith(prefix)))
  return new Map(matches.map(([topic, partitions]) => [topic, partitions.length]).sort() as [string, number][])
}
