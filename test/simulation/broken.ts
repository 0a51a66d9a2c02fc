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
  {
    what: 'a sink that was asked to stop took the doubt it was in for an answer',
    schedule: {
      setup: { seed: 30001191, partitions: 3, maxChanges: 4, followsOthers: false, parks: true, restartedAtEnd: true },
      steps: [
        { number: 15, at: 18305.3, action: { kind: 'stale answers', ms: 853 } },
        { number: 17, at: 18326.6, action: { kind: 'consumers break', process: 'applier P' } },
        { number: 22, at: 18979, action: { kind: 'stop', process: 'applier P', downMs: 2593 } },
        { number: 24, at: 19856.5, action: { kind: 'other source', topic: 'outbox.event.order', partition: 2, again: false } },
      ],
    },
  },
  {
    what: 'a relay that was stopped for as long as a doubt lasts halted without asking again',
    schedule: {
      setup: { seed: 30001931, partitions: 2, maxChanges: 4, followsOthers: true, parks: true, restartedAtEnd: true },
      steps: [
        { number: 1, at: 370.1, action: { kind: 'stream breaks' } },
        { number: 3, at: 492.9, action: { kind: 'freeze', process: 'relay A', ms: 7769, noticedMs: 3341 } },
        {
          number: 6,
          at: 1055.8,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'order', key: 'o5', type: 'OrderGone', payload: null, headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o5', type: 'OrderPut', payload: '{"v":6}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 9, at: 1659.7, action: { kind: 'stale answers', ms: 1149 } },
        { number: 10, at: 1869.1, action: { kind: 'stream breaks' } },
        { number: 17, at: 2374.5, action: { kind: 'freeze', process: 'relay B', ms: 6694, noticedMs: 2857 } },
        {
          number: 30,
          at: 9124.6,
          action: {
            kind: 'transaction',
            rows: [{ aggregate: 'order', key: 'o4', type: 'OrderPut', payload: '{"v":40}', headers: null, orderingKey: null }],
            backToBack: true,
            openMs: 750.6087087860797,
            rollback: false,
          },
        },
      ],
    },
  },
  {
    what: 'a session that was asked to stop wrote its state once more after a write of unknown outcome, which came late and replaced it',
    schedule: {
      setup: { seed: 520002268, partitions: 2, maxChanges: 2, followsOthers: true, parks: true, restartedAtEnd: true },
      steps: [
        {
          number: 4,
          at: 326,
          action: {
            kind: 'mishap',
            mishap: { to: 'queue', op: 'state write', from: null, delay: 6370, happens: true, answer: 'none' },
          },
        },
        {
          number: 17,
          at: 2806.7,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'holder1',
                type: 'CustomerPut',
                payload: '{"v":18,"handle":"h1"}',
                headers: null,
                orderingKey: null,
              },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 18,
          at: 2974.7,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'takerh1',
                type: 'CustomerPut',
                payload: '{"v":20,"handle":"h1"}',
                headers: null,
                orderingKey: null,
              },
            ],
            backToBack: false,
            openMs: 111.03416304546408,
            rollback: false,
          },
        },
        { number: 20, at: 3295.7, action: { kind: 'stop', process: 'relay A', downMs: 2570 } },
        {
          number: 29,
          at: 4279.7,
          action: { kind: 'mishap', mishap: { to: 'queue', op: 'read', from: null, delay: 4287, happens: true, answer: 'none' } },
        },
        {
          number: 47,
          at: 10825.5,
          action: {
            kind: 'transaction',
            rows: [{ aggregate: 'order', key: 'o6', type: 'OrderPut', payload: '{"v":59}', headers: null, orderingKey: null }],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
      ],
    },
  },
  {
    what: 'a halted sink forgot, once retention had cut the log, that it had read it from its first record',
    schedule: {
      setup: { seed: 30000888, partitions: 2, maxChanges: 12, followsOthers: false, parks: true, restartedAtEnd: true },
      steps: [
        { number: 14, at: 11658.3, action: { kind: 'foreign record', topic: 'outbox.event.customer', partition: 0 } },
        {
          number: 20,
          at: 14026.8,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'customer', key: 'c4', type: 'CustomerPut', payload: '{"v":6}', headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o2', type: 'OrderGone', payload: null, headers: null, orderingKey: null },
              { aggregate: 'customer', key: 'c0', type: 'CustomerGone', payload: null, headers: null, orderingKey: 'c-together' },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 24, at: 14226.8, action: { kind: 'broker loss', topic: 'outbox.event.customer', partition: 0, count: 1 } },
        { number: 54, at: 23062.6, action: { kind: 'retention', topic: 'outbox.event.customer', partition: 0, keep: 2 } },
      ],
    },
  },
  {
    what: 'the same, of a log whose first event was lost and written over',
    schedule: {
      setup: { seed: 41001760, partitions: 1, maxChanges: 2, followsOthers: true, parks: true, restartedAtEnd: true },
      steps: [
        { number: 1, at: 5239, action: { kind: 'foreign record', topic: 'outbox.event.order', partition: 0 } },
        { number: 6, at: 5893.1, action: { kind: 'broker loss', topic: 'outbox.event.order', partition: 0, count: 5 } },
        {
          number: 8,
          at: 6504.8,
          action: {
            kind: 'transaction',
            rows: [{ aggregate: 'order', key: 'o6', type: 'OrderPut', payload: '{"v":7}', headers: null, orderingKey: null }],
            backToBack: true,
            openMs: 253.5,
            rollback: false,
          },
        },
        {
          number: 25,
          at: 23053.1,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'customer', key: 'c2', type: 'CustomerPut', payload: '{"v":38}', headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o5', type: 'OrderPut', payload: '{"v":40}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 332.6,
            rollback: false,
          },
        },
        { number: 26, at: 23061.1, action: { kind: 'broker loss', topic: 'outbox.event.order', partition: 0, count: 1 } },
        { number: 41, at: 33988.5, action: { kind: 'retention', topic: 'outbox.event.order', partition: 0, keep: 0 } },
      ],
    },
  },
  {
    what: 'a sink that was started again took the last of the stale run that it began with for its chain',
    schedule: {
      setup: { seed: 41002267, partitions: 1, maxChanges: 12, followsOthers: false, parks: true, restartedAtEnd: true },
      steps: [
        { number: 6, at: 3558.2, action: { kind: 'freeze', process: 'relay B', ms: 3808, noticedMs: 1802 } },
        {
          number: 11,
          at: 4588.6,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'order',
                key: 'o4',
                type: 'OrderPut',
                payload: '{"v":12}',
                headers: '{"traceparent":"12"}',
                orderingKey: null,
              },
              { aggregate: 'customer', key: 'c4', type: 'CustomerPut', payload: '{"v":13}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 13,
          at: 4603.7,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'c1',
                type: 'CustomerPut',
                payload: '{"v":14}',
                headers: null,
                orderingKey: 'c-together',
              },
              { aggregate: 'order', key: 'o4', type: 'OrderPut', payload: '{"v":15}', headers: null, orderingKey: null },
            ],
            backToBack: false,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 22, at: 16525.7, action: { kind: 'retention', topic: 'outbox.event.order', partition: 0, keep: 1 } },
        { number: 29, at: 17198.8, action: { kind: 'sink joins', start: 'earliest' } },
        {
          number: 59,
          at: 20648.7,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'order', key: 'o2', type: 'OrderPut', payload: '{"v":71}', headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o6', type: 'OrderPut', payload: '{"v":72}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 637.2246478041634,
            rollback: false,
          },
        },
      ],
    },
  },
  {
    what: 'an event of a lost commit came late, behind one of the next epoch, where nobody reads it: no halt is due',
    schedule: {
      setup: { seed: 284388899, partitions: 1, maxChanges: 1, followsOthers: false, parks: true, restartedAtEnd: true },
      steps: [
        {
          number: 6,
          at: 10931.3,
          action: {
            kind: 'mishap',
            mishap: { to: 'queue', op: 'publish', from: 'relay A', delay: 8101, happens: true, answer: 'none' },
          },
        },
        {
          number: 8,
          at: 11619.8,
          action: {
            kind: 'transaction',
            rows: [{ aggregate: 'order', key: 'o4', type: 'OrderGone', payload: null, headers: null, orderingKey: null }],
            backToBack: true,
            openMs: 22.06244582380168,
            rollback: false,
          },
        },
        { number: 9, at: 11805.1, action: { kind: 'promotion', lagging: 1, ms: 1973 } },
        {
          number: 31,
          at: 14595.1,
          action: {
            kind: 'transaction',
            rows: [{ aggregate: 'order', key: 'o4', type: 'OrderGone', payload: null, headers: null, orderingKey: null }],
            backToBack: true,
            openMs: 99.16667572013102,
            rollback: false,
          },
        },
      ],
    },
  },
  {
    what: 'two partitions of one sink were in conflict, each in a process of its own, and waited for each other for ever',
    schedule: {
      setup: { seed: 530003987, partitions: 2, maxChanges: 12, followsOthers: true, parks: false, restartedAtEnd: true },
      steps: [
        {
          number: 4,
          at: 695.6,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'holder1',
                type: 'CustomerPut',
                payload: '{"v":6}',
                headers: null,
                orderingKey: null,
              },
              {
                aggregate: 'customer',
                key: 'takerh1',
                type: 'CustomerPut',
                payload: '{"v":7,"handle":"h1"}',
                headers: null,
                orderingKey: null,
              },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 5,
          at: 757.1,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'holder2',
                type: 'CustomerPut',
                payload: '{"v":8,"handle":"h2"}',
                headers: null,
                orderingKey: null,
              },
            ],
            backToBack: false,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 28,
          at: 34066.1,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'holder1',
                type: 'CustomerPut',
                payload: '{"v":2,"handle":"h1"}',
                headers: null,
                orderingKey: null,
              },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 60,
          at: 57941,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'holder2',
                type: 'CustomerPut',
                payload: '{"v":66}',
                headers: null,
                orderingKey: null,
              },
              {
                aggregate: 'customer',
                key: 'takerh2',
                type: 'CustomerPut',
                payload: '{"v":67,"handle":"h2"}',
                headers: null,
                orderingKey: null,
              },
            ],
            backToBack: false,
            openMs: 0,
            rollback: false,
          },
        },
      ],
    },
  },
  {
    what: 'after a drain a slot that rewound sent again what had been published, whose keys were in other partitions by then',
    schedule: {
      setup: { seed: 212, partitions: 2, maxChanges: 12, followsOthers: false, parks: true, restartedAtEnd: true },
      steps: [
        {
          number: 11,
          at: 1497.7,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'customer', key: 'c2', type: 'CustomerPut', payload: '{"v":32}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 12, at: 1504, action: { kind: 'partitions added', topic: 'outbox.event.order' } },
        {
          number: 13,
          at: 3655.1,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'order', key: 'o0', type: 'OrderPut', payload: '{"v":1}', headers: null, orderingKey: 'o-together' },
            ],
            backToBack: false,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 15, at: 3794.7, action: { kind: 'drain', mapping: false } },
        { number: 57, at: 19451.6, action: { kind: 'postgres crash', ms: 695 } },
      ],
    },
  },
  {
    what: 'a drain that stopped in the midst of a transaction marked the stream: the first half was published again, elsewhere',
    schedule: {
      setup: { seed: 696, partitions: 3, maxChanges: 1, followsOthers: true, parks: true, restartedAtEnd: true },
      steps: [
        {
          number: 45,
          at: 17870.4,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'order', key: 'o6', type: 'OrderPut', payload: '{"v":55}', headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o5', type: 'OrderPut', payload: '{"v":56}', headers: null, orderingKey: null },
            ],
            backToBack: false,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 46, at: 18253.8, action: { kind: 'stream breaks' } },
        { number: 50, at: 19106.2, action: { kind: 'partitions added', topic: 'outbox.event.order' } },
        { number: 53, at: 19634.4, action: { kind: 'drain', mapping: false } },
        {
          number: 54,
          at: 21487.3,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'order', key: 'o1', type: 'OrderGone', payload: null, headers: null, orderingKey: 'o-together' },
              { aggregate: 'order', key: 'o2', type: 'OrderPut', payload: '{"v":6}', headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o6', type: 'OrderGone', payload: null, headers: null, orderingKey: null },
              { aggregate: 'customer', key: 'c2', type: 'CustomerPut', payload: '{"v":7}', headers: null, orderingKey: null },
              { aggregate: 'customer', key: 'c3', type: 'CustomerPut', payload: '{"v":8}', headers: null, orderingKey: null },
            ],
            backToBack: false,
            openMs: 268.80559921171516,
            rollback: false,
          },
        },
        {
          number: 55,
          at: 21487.3,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'order', key: 'o3', type: 'OrderPut', payload: '{"v":65}', headers: null, orderingKey: null },
              { aggregate: 'customer', key: 'c3', type: 'CustomerPut', payload: '{"v":66}', headers: null, orderingKey: null },
              { aggregate: 'customer', key: 'c0', type: 'CustomerGone', payload: null, headers: null, orderingKey: 'c-together' },
            ],
            backToBack: false,
            openMs: 0,
            rollback: false,
          },
        },
      ],
    },
  },
  {
    what: 'a drain was marked while a publish of its own was under way, whose session had failed',
    schedule: {
      setup: { seed: 969, partitions: 3, maxChanges: 12, followsOthers: true, parks: false, restartedAtEnd: false },
      steps: [
        {
          number: 8,
          at: 895.8,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'customer', key: 'c3', type: 'CustomerPut', payload: '{"v":19}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 439.3557531114202,
            rollback: false,
          },
        },
        { number: 11, at: 1301, action: { kind: 'outage', service: 'queue', ms: 1191 } },
        { number: 13, at: 1973.6, action: { kind: 'promotion', lagging: 0, ms: 47 } },
        {
          number: 14,
          at: 13538.7,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'order', key: 'o3', type: 'OrderPut', payload: '{"v":32}', headers: null, orderingKey: null },
              {
                aggregate: 'customer',
                key: 'c0',
                type: 'CustomerPut',
                payload: '{"v":33}',
                headers: null,
                orderingKey: 'c-together',
              },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 15, at: 13625.5, action: { kind: 'postgres crash', ms: 1617 } },
        { number: 29, at: 19109.3, action: { kind: 'postgres crash', ms: 1147 } },
        { number: 30, at: 19120.4, action: { kind: 'partitions added', topic: 'outbox.event.customer' } },
        {
          number: 31,
          at: 21898.4,
          action: {
            kind: 'mishap',
            mishap: { to: 'queue', op: 'publish', from: null, delay: 4639.421794563532, happens: true, answer: 'none' },
          },
        },
        {
          number: 32,
          at: 21898.4,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'holder1',
                type: 'CustomerPut',
                payload: '{"v":1,"handle":"h1"}',
                headers: null,
                orderingKey: null,
              },
            ],
            backToBack: false,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 33, at: 22047.1, action: { kind: 'drain', mapping: true } },
        {
          number: 53,
          at: 26718.6,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'c1',
                type: 'CustomerPut',
                payload: '{"v":96}',
                headers: null,
                orderingKey: 'c-together',
              },
            ],
            backToBack: false,
            openMs: 335.08979527582414,
            rollback: false,
          },
        },
        { number: 54, at: 27128.5, action: { kind: 'postgres crash', ms: 1651 } },
      ],
    },
  },
  {
    what: 'a broker that had just come back made a relay begin the chains of a drained stream anew',
    schedule: {
      setup: { seed: 800002882, partitions: 2, maxChanges: 1, followsOthers: false, parks: true, restartedAtEnd: false },
      steps: [
        {
          number: 9,
          at: 2783.4,
          action: {
            kind: 'mishap',
            mishap: { to: 'queue', op: 'publish', from: null, delay: 5996.781529858708, happens: true, answer: 'none' },
          },
        },
        {
          number: 10,
          at: 2783.4,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'order', key: 'o2', type: 'OrderGone', payload: null, headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o5', type: 'OrderGone', payload: null, headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o5', type: 'OrderPut', payload: '{"v":1}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 11, at: 2852.2, action: { kind: 'drain', mapping: false } },
        {
          number: 27,
          at: 5286.7,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'customer', key: 'c2', type: 'CustomerPut', payload: '{"v":27}', headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o5', type: 'OrderGone', payload: null, headers: null, orderingKey: null },
              {
                aggregate: 'customer',
                key: 'c0',
                type: 'CustomerPut',
                payload: '{"v":28}',
                headers: '{"traceparent":"28"}',
                orderingKey: 'c-together',
              },
              { aggregate: 'order', key: 'o5', type: 'OrderPut', payload: '{"v":29}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 28,
          at: 5430,
          action: {
            kind: 'mishap',
            mishap: { to: 'postgres', op: 'copy write', from: null, delay: 6494, happens: true, answer: 'error' },
          },
        },
        { number: 31, at: 10501.1, action: { kind: 'broker loss', topic: 'outbox.event.order', partition: 0, count: 2 } },
        { number: 33, at: 17992.4, action: { kind: 'stale answers', ms: 920 } },
        {
          number: 34,
          at: 18370.6,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'order', key: 'o3', type: 'OrderPut', payload: '{"v":33}', headers: null, orderingKey: null },
              { aggregate: 'customer', key: 'c3', type: 'CustomerPut', payload: '{"v":34}', headers: null, orderingKey: null },
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
