import { Counter, Gauge, Registry } from 'prom-client'
import type { StatusReport } from '../runtime/status.ts'

type Labels = Readonly<Record<string, string | number>>
type Sample = readonly [labels: Labels, value: number | null]

interface Family {
  readonly type: 'gauge' | 'counter'
  readonly help: string
  readonly labels: readonly string[]
  readonly samples: (status: StatusReport) => readonly Sample[]
}

const PARTITION = ['pipeline', 'sink', 'topic', 'partition'] as const

/** Every metric, its labels and where its value comes from. Names and labels are what dashboards depend on. */
const FAMILIES: Readonly<Record<string, Family>> = {
  millrace_slot_retained_bytes: {
    type: 'gauge',
    help: 'WAL that Postgres keeps because of the slot',
    labels: ['pipeline'],
    samples: ({ pipeline, slot }) => (slot === null ? [] : [[{ pipeline }, slot.retainedBytes]]),
  },
  millrace_relay_position_lag_bytes: {
    type: 'gauge',
    help: 'WAL that was sent and is not confirmed',
    labels: ['pipeline'],
    samples: ({ pipeline, relay }) => (relay === null ? [] : [[{ pipeline }, relay.lagBytes]]),
  },
  millrace_sink_lag_events: {
    type: 'gauge',
    help: 'Records of the partition that are not applied',
    labels: PARTITION,
    samples: (status) => byPartition(status, (partition) => partition.lagEvents),
  },
  millrace_sink_lag_bytes: {
    type: 'gauge',
    help: 'WAL between what was published last and what was applied last; where the relay runs in the same process',
    labels: PARTITION,
    samples: (status) => byPartition(status, (partition) => partition.lagBytes),
  },
  millrace_sink_lag_seconds: {
    type: 'gauge',
    help: 'Age of the oldest event of the partition that is known and not applied',
    labels: PARTITION,
    samples: (status) => byPartition(status, (partition) => partition.lagSeconds),
  },
  millrace_published_events_total: {
    type: 'counter',
    help: 'Events published since the process started',
    labels: ['pipeline', 'topic'],
    samples: ({ pipeline, relay }) =>
      Object.entries(relay?.published ?? {}).map(([topic, count]) => [{ pipeline, topic }, count]),
  },
  millrace_applied_events_total: {
    type: 'counter',
    help: 'Events applied since the partition was assigned',
    labels: PARTITION,
    samples: (status) => byPartition(status, (partition) => partition.applied),
  },
  millrace_parked_keys: {
    type: 'gauge',
    help: 'Keys of which an event cannot be applied: it and what follows of its key wait',
    labels: ['pipeline', 'sink'],
    samples: ({ pipeline, sinks }) => sinks.map(({ name, parked }) => [{ pipeline, sink: name }, parked?.keys ?? null]),
  },
  millrace_parked_events: {
    type: 'gauge',
    help: 'Events that wait in parked keys',
    labels: ['pipeline', 'sink'],
    samples: ({ pipeline, sinks }) => sinks.map(({ name, parked }) => [{ pipeline, sink: name }, parked?.events ?? null]),
  },
  millrace_halted: {
    type: 'gauge',
    help: '1 for whatever waits for a person to decide; labels say what and why',
    labels: [...PARTITION, 'code'],
    samples: halted,
  },
  millrace_last_heartbeat_timestamp_seconds: {
    type: 'gauge',
    help: 'When the source was last heard',
    labels: ['pipeline'],
    samples: ({ pipeline, relay }) => (relay?.heardAt ? [[{ pipeline }, Date.parse(relay.heardAt) / 1_000]] : []),
  },
}

/** Prometheus' text for a status. */
export async function metricsOf(status: StatusReport): Promise<string> {
  const registry = new Registry()
  for (const [name, family] of Object.entries(FAMILIES)) {
    const options = { name, help: family.help, labelNames: [...family.labels], registers: [registry] }
    const metric = family.type === 'gauge' ? new Gauge(options) : new Counter(options)
    for (const [labels, value] of family.samples(status)) if (value !== null) metric.inc(labels, value)
  }
  return registry.metrics()
}

function byPartition(
  status: StatusReport,
  value: (partition: StatusReport['sinks'][number]['partitions'][number]) => number | null,
): Sample[] {
  return status.sinks.flatMap((sink) =>
    sink.partitions.map(
      (one): Sample => [{ pipeline: status.pipeline, sink: sink.name, topic: one.topic, partition: one.partition }, value(one)],
    ),
  )
}

function halted(status: StatusReport): Sample[] {
  const { pipeline } = status
  const found: Sample[] = []
  if (status.relay?.phase === 'halted') found.push([{ pipeline, code: status.relay.error?.code ?? '' }, 1])
  for (const sink of status.sinks) {
    if (sink.phase === 'halted') found.push([{ pipeline, sink: sink.name, code: sink.error?.code ?? '' }, 1])
    for (const { topic, partition, phase, error } of sink.partitions)
      if (phase === 'halted') found.push([{ pipeline, sink: sink.name, topic, partition, code: error?.code ?? '' }, 1])
  }
  return found.length > 0 ? found : [[{ pipeline }, 0]]
}
