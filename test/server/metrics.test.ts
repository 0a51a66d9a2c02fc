import { expect, test } from 'vitest'
import type { PartitionReport, StatusReport } from '../../src/runtime/status.ts'
import { metricsOf } from '../../src/server/metrics.ts'

const partition: PartitionReport = {
  topic: 'outbox.event.order',
  partition: 3,
  phase: 'following',
  positions: { shop: '00000001-0000000001a2b3c4-00000001' },
  offset: '90',
  end: '100',
  lagEvents: 10,
  lagSeconds: 1.5,
  lagBytes: 4096,
  applied: 90,
  passedOver: 0,
  foundedAt: null,
  error: null,
}

const status: StatusReport = {
  schema: 1,
  pipeline: 'shop',
  at: '2026-11-21T12:00:00.000Z',
  slot: { active: true, walStatus: 'reserved', confirmed: '0/1', walEnd: '0/2', retainedBytes: 2048, safeWalBytes: null },
  relay: {
    phase: 'running',
    session: null,
    confirmed: '0/1',
    walEnd: '0/65',
    lagBytes: 100,
    position: '00000001-0000000001a2b3c4-00000001',
    heardAt: '2026-11-21T12:00:00.000Z',
    published: { 'outbox.event.order': 100 },
    attempts: 0,
    error: null,
  },
  gaps: [],
  sinks: [
    { name: 'warehouse', phase: 'running', error: null, parked: { keys: 2, events: 7, bytes: 512 }, partitions: [partition] },
  ],
  problems: [],
}

/** Names and labels are what dashboards and alerts were built on. */
test('the metrics are these', async () => {
  const lines = (await metricsOf(status)).split('\n').filter((line) => line !== '' && !line.startsWith('# HELP'))
  expect(lines).toEqual([
    '# TYPE millrace_slot_retained_bytes gauge',
    'millrace_slot_retained_bytes{pipeline="shop"} 2048',
    '# TYPE millrace_relay_position_lag_bytes gauge',
    'millrace_relay_position_lag_bytes{pipeline="shop"} 100',
    '# TYPE millrace_sink_lag_events gauge',
    'millrace_sink_lag_events{pipeline="shop",sink="warehouse",topic="outbox.event.order",partition="3"} 10',
    '# TYPE millrace_sink_lag_bytes gauge',
    'millrace_sink_lag_bytes{pipeline="shop",sink="warehouse",topic="outbox.event.order",partition="3"} 4096',
    '# TYPE millrace_sink_lag_seconds gauge',
    'millrace_sink_lag_seconds{pipeline="shop",sink="warehouse",topic="outbox.event.order",partition="3"} 1.5',
    '# TYPE millrace_published_events_total counter',
    'millrace_published_events_total{pipeline="shop",topic="outbox.event.order"} 100',
    '# TYPE millrace_applied_events_total counter',
    'millrace_applied_events_total{pipeline="shop",sink="warehouse",topic="outbox.event.order",partition="3"} 90',
    '# TYPE millrace_parked_keys gauge',
    'millrace_parked_keys{pipeline="shop",sink="warehouse"} 2',
    '# TYPE millrace_parked_events gauge',
    'millrace_parked_events{pipeline="shop",sink="warehouse"} 7',
    '# TYPE millrace_halted gauge',
    'millrace_halted{pipeline="shop"} 0',
    '# TYPE millrace_last_heartbeat_timestamp_seconds gauge',
    `millrace_last_heartbeat_timestamp_seconds{pipeline="shop"} ${Date.parse('2026-11-21T12:00:00Z') / 1_000}`,
  ])
})

test('what is halted says what and why, never which key', async () => {
  const error = { code: 'MILLRACE_GAP', message: 'a gap', remedy: null }
  const halted: StatusReport = {
    ...status,
    sinks: [
      { name: 'warehouse', phase: 'running', error: null, parked: null, partitions: [{ ...partition, phase: 'halted', error }] },
    ],
  }
  const text = await metricsOf(halted)
  expect(text).toContain(
    'millrace_halted{pipeline="shop",sink="warehouse",topic="outbox.event.order",partition="3",code="MILLRACE_GAP"} 1',
  )
  expect(text).not.toContain('millrace_halted{pipeline="shop"} 0')
  expect(text).not.toContain('millrace_parked_keys{')
})

test('what is not known is left out, not zero', async () => {
  const text = await metricsOf({ ...status, slot: null, relay: null, sinks: [] })
  expect(text).not.toMatch(/^millrace_(slot|relay|sink|last)/m)
})
