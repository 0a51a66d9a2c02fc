import type { Schedule } from './schedule.ts'

/**
 * Schedules that broke a promise once, each as short as it was found: `npm test` runs them before any fresh one. They are
 * data, since a seed is another schedule as soon as there is one more kind of fault. `npm run simulate` prints what
 * belongs here when it finds one.
 */
export const BROKEN: readonly { readonly what: string; readonly schedule: Schedule }[] = [
  {
    what: "a former session's publishes straddled the end that the next one recorded for a new topic",
    schedule: {
      setup: { seed: 70, partitions: 1, maxChanges: 1, followsOthers: false, parks: true, restartedAtEnd: false },
      steps: [
        { number: 1, at: 139.6, action: { kind: 'stream breaks' } },
        {
          number: 3,
          at: 406.4,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'order', key: 'o3', type: 'OrderPut', payload: '{"v":5}', headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o6', type: 'OrderPut', payload: '{"v":6}', headers: null, orderingKey: null },
            ],
            backToBack: false,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 4,
          at: 486.8,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'order', key: 'o0', type: 'OrderPut', payload: '{"v":7}', headers: null, orderingKey: 'o-together' },
              { aggregate: 'order', key: 'o5', type: 'OrderPut', payload: '{"v":8}', headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o2', type: 'OrderPut', payload: '{"v":9}', headers: null, orderingKey: null },
              {
                aggregate: 'customer',
                key: 'c0',
                type: 'CustomerPut',
                payload: '{"v":10}',
                headers: null,
                orderingKey: 'c-together',
              },
              { aggregate: 'customer', key: 'c2', type: 'CustomerPut', payload: '{"v":11}', headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o1', type: 'OrderPut', payload: '{"v":12}', headers: null, orderingKey: 'o-together' },
              { aggregate: 'order', key: 'o4', type: 'OrderPut', payload: '{"v":13}', headers: null, orderingKey: null },
              { aggregate: 'customer', key: 'c3', type: 'CustomerPut', payload: '{"v":14}', headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o1', type: 'OrderGone', payload: null, headers: null, orderingKey: 'o-together' },
            ],
            backToBack: false,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 15, at: 1808.7, action: { kind: 'stream breaks' } },
      ],
    },
  },
  {
    what: 'the first event of a partition was lost, and a sink founded its chain on the second',
    schedule: {
      setup: { seed: 86, partitions: 2, maxChanges: 4, followsOthers: true, parks: false, restartedAtEnd: false },
      steps: [
        {
          number: 1,
          at: 276,
          action: {
            kind: 'transaction',
            rows: [{ aggregate: 'order', key: 'o3', type: 'OrderPut', payload: '{"v":1}', headers: null, orderingKey: null }],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 2, at: 621, action: { kind: 'broker loss', topic: 'outbox.event.order', partition: 1, count: 2 } },
        {
          number: 3,
          at: 7857,
          action: {
            kind: 'transaction',
            rows: [{ aggregate: 'order', key: 'o3', type: 'OrderPut', payload: '{"v":3}', headers: null, orderingKey: null }],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
      ],
    },
  },
  {
    what: 'an event of a lost commit came late and was bridged by a relay that started later',
    schedule: {
      setup: { seed: 307, partitions: 2, maxChanges: 2, followsOthers: true, parks: true, restartedAtEnd: true },
      steps: [
        {
          number: 1,
          at: 19331.7,
          action: {
            kind: 'mishap',
            mishap: { to: 'queue', op: 'publish', from: null, delay: 5000, happens: true, answer: 'none' },
          },
        },
        {
          number: 2,
          at: 19331.7,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'customer', key: 'c3', type: 'CustomerPut', payload: '{"v":2}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 3, at: 19571, action: { kind: 'promotion', lagging: 1, ms: 50 } },
        { number: 4, at: 29571, action: { kind: 'postgres checkpoint' } },
      ],
    },
  },
  {
    what: 'a sink that had passed only a foreign record took the second event of a shortened log for its first',
    schedule: {
      setup: { seed: 20261789, partitions: 2, maxChanges: 12, followsOthers: false, parks: true, restartedAtEnd: true },
      steps: [
        { number: 5, at: 12957.2, action: { kind: 'foreign record', topic: 'outbox.event.order', partition: 0 } },
        { number: 8, at: 13531.3, action: { kind: 'broker loss', topic: 'outbox.event.order', partition: 0, count: 1 } },
        {
          number: 15,
          at: 16144.4,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'order', key: 'o5', type: 'OrderPut', payload: '{"v":18}', headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o5', type: 'OrderPut', payload: '{"v":19}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
      ],
    },
  },
]
