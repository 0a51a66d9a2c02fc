// Over 400 lines, because it is data: one schedule after another.
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
  {
    what: 'a session that had begun on a server which was left behind counted for more than the one on the promoted server',
    schedule: {
      setup: { seed: 291822687, partitions: 3, maxChanges: 2, followsOthers: false, parks: true, restartedAtEnd: true },
      steps: [
        {
          number: 5,
          at: 578.5,
          action: {
            kind: 'transaction',
            rows: [{ aggregate: 'order', key: 'o5', type: 'OrderGone', payload: null, headers: null, orderingKey: null }],
            backToBack: true,
            openMs: 896.9505846882239,
            rollback: false,
          },
        },
        {
          number: 6,
          at: 752.8,
          action: {
            kind: 'transaction',
            rows: [{ aggregate: 'order', key: 'o3', type: 'OrderPut', payload: '{"v":13}', headers: null, orderingKey: null }],
            backToBack: false,
            openMs: 490.00133054098114,
            rollback: false,
          },
        },
        { number: 9, at: 978.9, action: { kind: 'outage', service: 'queue', ms: 3457 } },
        { number: 10, at: 1310.6, action: { kind: 'stop', process: 'relay A', downMs: 1871 } },
        {
          number: 14,
          at: 2113.3,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'customer', key: 'c3', type: 'CustomerPut', payload: '{"v":17}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 15,
          at: 2116.3,
          action: {
            kind: 'mishap',
            mishap: { to: 'queue', op: 'state write', from: null, delay: 99, happens: false, answer: 'error' },
          },
        },
        {
          number: 17,
          at: 2179.7,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'customer', key: 'c4', type: 'CustomerPut', payload: '{"v":23}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 18, at: 2192.8, action: { kind: 'promotion', lagging: 2, ms: 515 } },
        { number: 23, at: 4677.1, action: { kind: 'postgres restart', ms: 1792 } },
        {
          number: 44,
          at: 6778.4,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'order', key: 'o0', type: 'OrderPut', payload: '{"v":68}', headers: null, orderingKey: 'o-together' },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 45, at: 6847.2, action: { kind: 'promotion', lagging: 1, ms: 71 } },
        {
          number: 48,
          at: 7409,
          action: {
            kind: 'transaction',
            rows: [{ aggregate: 'order', key: 'o3', type: 'OrderPut', payload: '{"v":72}', headers: null, orderingKey: null }],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 49,
          at: 7448.2,
          action: {
            kind: 'transaction',
            rows: [{ aggregate: 'customer', key: 'c3', type: 'CustomerGone', payload: null, headers: null, orderingKey: null }],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 51, at: 7536.9, action: { kind: 'promotion', lagging: 3, ms: 1962 } },
      ],
    },
  },
  {
    what: 'a confirm that did not reach a server that was down was not said again (by the model)',
    schedule: {
      setup: { seed: 291805839, partitions: 2, maxChanges: 4, followsOthers: true, parks: false, restartedAtEnd: true },
      steps: [
        { number: 1, at: 94.6, action: { kind: 'freeze', process: 'relay A', ms: 3848, noticedMs: 692 } },
        {
          number: 2,
          at: 183.8,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'customer', key: 'c4', type: 'CustomerPut', payload: '{"v":1}', headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o2', type: 'OrderPut', payload: '{"v":2}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 4,
          at: 717.9,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'order', key: 'o4', type: 'OrderGone', payload: null, headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o1', type: 'OrderPut', payload: '{"v":3}', headers: null, orderingKey: 'o-together' },
            ],
            backToBack: false,
            openMs: 590.9162588845938,
            rollback: false,
          },
        },
        {
          number: 8,
          at: 1105.6,
          action: {
            kind: 'mishap',
            mishap: { to: 'queue', op: 'publish', from: 'relay A', delay: 7770, happens: true, answer: 'given' },
          },
        },
        {
          number: 9,
          at: 1120.3,
          action: { kind: 'crash at', process: 'relay B', failpoint: 'state-written', downMs: 535, noticedMs: 87 },
        },
        {
          number: 10,
          at: 1129.7,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'c2',
                type: 'CustomerPut',
                payload: '{"v":4}',
                headers: '{"traceparent":"4"}',
                orderingKey: null,
              },
              { aggregate: 'customer', key: 'c2', type: 'CustomerPut', payload: '{"v":5}', headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o2', type: 'OrderPut', payload: '{"v":6}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 15,
          at: 2188.1,
          action: {
            kind: 'transaction',
            rows: [{ aggregate: 'order', key: 'o5', type: 'OrderGone', payload: null, headers: null, orderingKey: null }],
            backToBack: false,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 16,
          at: 2549.8,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'customer', key: 'c3', type: 'CustomerPut', payload: '{"v":9}', headers: null, orderingKey: null },
            ],
            backToBack: false,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 19, at: 3642.3, action: { kind: 'stream breaks' } },
        { number: 22, at: 4232, action: { kind: 'outage', service: 'postgres', ms: 4472 } },
        {
          number: 41,
          at: 9641.5,
          action: { kind: 'mishap', mishap: { to: 'queue', op: 'read', from: null, delay: 114, happens: true, answer: 'none' } },
        },
        {
          number: 42,
          at: 9665.2,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'c1',
                type: 'CustomerPut',
                payload: '{"v":45}',
                headers: null,
                orderingKey: 'c-together',
              },
              { aggregate: 'order', key: 'o4', type: 'OrderPut', payload: '{"v":46}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 45,
          at: 23896.1,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'order', key: 'o1', type: 'OrderPut', payload: '{"v":47}', headers: null, orderingKey: 'o-together' },
              { aggregate: 'order', key: 'o1', type: 'OrderPut', payload: '{"v":48}', headers: null, orderingKey: 'o-together' },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 46,
          at: 24176.8,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'order', key: 'o4', type: 'OrderGone', payload: null, headers: null, orderingKey: null },
              {
                aggregate: 'customer',
                key: 'c3',
                type: 'CustomerPut',
                payload: '{"v":49}',
                headers: '{"traceparent":"49"}',
                orderingKey: null,
              },
              { aggregate: 'customer', key: 'c3', type: 'CustomerPut', payload: '{"v":50}', headers: null, orderingKey: null },
            ],
            backToBack: false,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 53,
          at: 37323.8,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'order', key: 'o1', type: 'OrderPut', payload: '{"v":67}', headers: null, orderingKey: 'o-together' },
              { aggregate: 'order', key: 'o6', type: 'OrderPut', payload: '{"v":68}', headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o0', type: 'OrderPut', payload: '{"v":69}', headers: null, orderingKey: 'o-together' },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 54, at: 37604.8, action: { kind: 'outage', service: 'postgres', ms: 2260 } },
        {
          number: 56,
          at: 37924.6,
          action: { kind: 'mishap', mishap: { to: 'queue', op: 'join', from: null, delay: 3, happens: false, answer: 'error' } },
        },
      ],
    },
  },
  {
    what: 'what a frozen session wrote of its state stood alone once the queue had lost all later ones, and its slot stood further: a halt that was held false',
    schedule: {
      setup: { seed: 291824479, partitions: 1, maxChanges: 12, followsOthers: true, parks: true, restartedAtEnd: false },
      steps: [
        { number: 4, at: 427.6, action: { kind: 'postgres restart', ms: 550 } },
        { number: 5, at: 440, action: { kind: 'freeze', process: 'relay A', ms: 8333, noticedMs: 3644 } },
        {
          number: 17,
          at: 3033.3,
          action: {
            kind: 'transaction',
            rows: [{ aggregate: 'order', key: 'o2', type: 'OrderGone', payload: null, headers: null, orderingKey: null }],
            backToBack: true,
            openMs: 27.33831511531025,
            rollback: false,
          },
        },
        { number: 18, at: 3435.6, action: { kind: 'state lost' } },
        { number: 19, at: 3764.2, action: { kind: 'broker loss', topic: 'outbox.event.order', partition: 0, count: 4 } },
        {
          number: 20,
          at: 3769.9,
          action: {
            kind: 'transaction',
            rows: [{ aggregate: 'order', key: 'o2', type: 'OrderPut', payload: '{"v":27}', headers: null, orderingKey: null }],
            backToBack: true,
            openMs: 644.9400168594439,
            rollback: false,
          },
        },
        { number: 24, at: 4667.2, action: { kind: 'outage', service: 'postgres', ms: 4942 } },
      ],
    },
  },
  {
    what: '… written by a session that was replaced, and arriving after that loss',
    schedule: {
      setup: { seed: 291833870, partitions: 2, maxChanges: 12, followsOthers: true, parks: true, restartedAtEnd: true },
      steps: [
        {
          number: 2,
          at: 574.8,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'c1',
                type: 'CustomerPut',
                payload: '{"v":2}',
                headers: null,
                orderingKey: 'c-together',
              },
            ],
            backToBack: false,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 7,
          at: 1735.3,
          action: {
            kind: 'mishap',
            mishap: { to: 'postgres', op: 'next', from: null, delay: 1407, happens: true, answer: 'none' },
          },
        },
        {
          number: 8,
          at: 2100,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'order',
                key: 'o6',
                type: 'OrderPut',
                payload: '{"v":15}',
                headers: '{"traceparent":"15"}',
                orderingKey: null,
              },
            ],
            backToBack: false,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 9, at: 2518.4, action: { kind: 'stream breaks' } },
        { number: 11, at: 2678.3, action: { kind: 'write elsewhere', bytes: 915 } },
        {
          number: 12,
          at: 2707.8,
          action: { kind: 'mishap', mishap: { to: 'queue', op: null, from: null, delay: 2389, happens: true, answer: 'given' } },
        },
        { number: 16, at: 5235.8, action: { kind: 'state lost' } },
      ],
    },
  },
  {
    what: '… written by a session that had given it up, and arriving after that loss',
    schedule: {
      setup: { seed: 291866657, partitions: 2, maxChanges: 4, followsOthers: true, parks: true, restartedAtEnd: true },
      steps: [
        {
          number: 10,
          at: 2538,
          action: {
            kind: 'mishap',
            mishap: { to: 'queue', op: 'state write', from: null, delay: 7064, happens: true, answer: 'error' },
          },
        },
        {
          number: 12,
          at: 2751.9,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'customer', key: 'c2', type: 'CustomerPut', payload: '{"v":26}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 13, at: 2999.6, action: { kind: 'stream breaks' } },
        { number: 17, at: 9825.1, action: { kind: 'state lost' } },
      ],
    },
  },
  {
    what: 'an event of a lost commit, behind one of a later epoch, was held to be untold once there was another in another place',
    schedule: {
      setup: { seed: 291879179, partitions: 3, maxChanges: 12, followsOthers: true, parks: true, restartedAtEnd: true },
      steps: [
        { number: 1, at: 57, action: { kind: 'stop', process: 'relay A', downMs: 2360 } },
        {
          number: 12,
          at: 31687.4,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'customer', key: 'c3', type: 'CustomerPut', payload: '{"v":19}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 13, at: 32077.4, action: { kind: 'freeze', process: 'relay B', ms: 3299, noticedMs: 1307 } },
        {
          number: 14,
          at: 32214.5,
          action: {
            kind: 'mishap',
            mishap: { to: 'queue', op: 'publish', from: null, delay: 5000, happens: true, answer: 'none' },
          },
        },
        {
          number: 15,
          at: 32214.5,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'customer', key: 'c4', type: 'CustomerPut', payload: '{"v":1}', headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o4', type: 'OrderPut', payload: '{"v":2}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 16, at: 32341.1, action: { kind: 'promotion', lagging: 1, ms: 50 } },
        {
          number: 17,
          at: 40303.3,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'order', key: 'o4', type: 'OrderPut', payload: '{"v":3}', headers: null, orderingKey: null },
              {
                aggregate: 'customer',
                key: 'c3',
                type: 'CustomerPut',
                payload: '{"v":4}',
                headers: '{"traceparent":"4"}',
                orderingKey: null,
              },
            ],
            backToBack: false,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 20,
          at: 40574.2,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'order', key: 'o1', type: 'OrderPut', payload: '{"v":23}', headers: null, orderingKey: 'o-together' },
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
    what: 'a stopped applier that went on passed for the owner of the halted partition it had lost, just when the judge looked (late news of a rebalance)',
    schedule: {
      setup: { seed: 291820518, partitions: 1, maxChanges: 4, followsOthers: true, parks: true, restartedAtEnd: false },
      steps: [
        {
          number: 18,
          at: 2819.9,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'takerh1',
                type: 'CustomerPut',
                payload: '{"v":32,"handle":"h1"}',
                headers: null,
                orderingKey: null,
              },
            ],
            backToBack: true,
            openMs: 600.6929983077571,
            rollback: false,
          },
        },
        {
          number: 30,
          at: 5886.6,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'customer', key: 'c1', type: 'CustomerGone', payload: null, headers: null, orderingKey: 'c-together' },
              { aggregate: 'customer', key: 'c2', type: 'CustomerPut', payload: '{"v":10}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 207.93367197643965,
            rollback: false,
          },
        },
        { number: 33, at: 6086.6, action: { kind: 'broker loss', topic: 'outbox.event.customer', partition: 0, count: 1 } },
        { number: 41, at: 33399.4, action: { kind: 'rebalance', grudgingMs: 4289 } },
        { number: 48, at: 34856.9, action: { kind: 'rebalance', grudgingMs: 0 } },
        { number: 49, at: 34977.4, action: { kind: 'freeze', process: 'applier Q', ms: 2890, noticedMs: 2461 } },
        { number: 50, at: 35262.6, action: { kind: 'stream breaks' } },
      ],
    },
  },
  {
    what: 'a stopped applier that went on passed for the owner of the halted partition it had lost (retention had emptied the log)',
    schedule: {
      setup: { seed: 291835323, partitions: 2, maxChanges: 4, followsOthers: false, parks: false, restartedAtEnd: false },
      steps: [
        {
          number: 20,
          at: 12237.2,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'c1',
                type: 'CustomerPut',
                payload: '{"v":26}',
                headers: null,
                orderingKey: 'c-together',
              },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 23, at: 12745.3, action: { kind: 'rebalance', grudgingMs: 0 } },
        {
          number: 24,
          at: 12750.3,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'customer', key: 'c4', type: 'CustomerPut', payload: '{"v":38}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 351.40205512428656,
            rollback: false,
          },
        },
        { number: 25, at: 12752.6, action: { kind: 'freeze', process: 'applier Q', ms: 5901, noticedMs: 3487 } },
        { number: 31, at: 13473.8, action: { kind: 'retention', topic: 'outbox.event.customer', partition: 0, keep: 0 } },
        { number: 49, at: 31083.6, action: { kind: 'rebalance', grudgingMs: 0 } },
        { number: 53, at: 37267.1, action: { kind: 'freeze', process: 'applier P', ms: 5094, noticedMs: 1774 } },
        { number: 54, at: 37371.3, action: { kind: 'rebalance', grudgingMs: 0 } },
        { number: 59, at: 37505.2, action: { kind: 'rebalance', grudgingMs: 0 } },
        {
          number: 60,
          at: 37506.7,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'c0',
                type: 'CustomerPut',
                payload: '{"v":65}',
                headers: null,
                orderingKey: 'c-together',
              },
            ],
            backToBack: false,
            openMs: 774.9256577682681,
            rollback: false,
          },
        },
        { number: 61, at: 41506.7, action: { kind: 'broker loss', topic: 'outbox.event.customer', partition: 1, count: 1 } },
      ],
    },
  },
  {
    what: 'a stopped applier that went on passed for the owner of the halted partition it had lost (a conflict was not yet final again)',
    schedule: {
      setup: { seed: 291884905, partitions: 2, maxChanges: 2, followsOthers: true, parks: false, restartedAtEnd: true },
      steps: [
        {
          number: 2,
          at: 11790.7,
          action: {
            kind: 'transaction',
            rows: [
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
          number: 8,
          at: 21156.9,
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
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 14, at: 25221.8, action: { kind: 'slot dropped' } },
        { number: 33, at: 55584.3, action: { kind: 'freeze', process: 'applier Q', ms: 4214, noticedMs: 3953 } },
        { number: 49, at: 56855.8, action: { kind: 'rebalance', grudgingMs: 0 } },
        { number: 58, at: 58311.7, action: { kind: 'rebalance', grudgingMs: 0 } },
        {
          number: 60,
          at: 58664.3,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'c1',
                type: 'CustomerPut',
                payload: '{"v":79}',
                headers: '{"traceparent":"79"}',
                orderingKey: 'c-together',
              },
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
    what: 'the fingerprint changed during a drain, whose mark the next session rightly follows with any',
    schedule: {
      setup: { seed: 291845805, partitions: 3, maxChanges: 4, followsOthers: true, parks: true, restartedAtEnd: true },
      steps: [
        {
          number: 20,
          at: 24290.4,
          action: {
            kind: 'mishap',
            mishap: { to: 'queue', op: 'publish', from: null, delay: 1226.4868412166834, happens: true, answer: 'none' },
          },
        },
        {
          number: 21,
          at: 24290.4,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'c1',
                type: 'CustomerPut',
                payload: '{"v":1}',
                headers: null,
                orderingKey: 'c-together',
              },
            ],
            backToBack: false,
            openMs: 506.17389728454873,
            rollback: false,
          },
        },
        { number: 22, at: 24446.2, action: { kind: 'drain', mapping: true } },
        {
          number: 23,
          at: 24660,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'customer', key: 'c3', type: 'CustomerPut', payload: '{"v":3}', headers: null, orderingKey: null },
            ],
            backToBack: false,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 28, at: 36221.2, action: { kind: 'fingerprint changed' } },
      ],
    },
  },
  {
    what: 'the fingerprint changed during a drain that followed upon halts',
    schedule: {
      setup: { seed: 291886793, partitions: 2, maxChanges: 4, followsOthers: true, parks: true, restartedAtEnd: true },
      steps: [
        {
          number: 2,
          at: 200.6,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'order', key: 'o0', type: 'OrderPut', payload: '{"v":22}', headers: null, orderingKey: 'o-together' },
            ],
            backToBack: false,
            openMs: 876.1042102931533,
            rollback: false,
          },
        },
        {
          number: 6,
          at: 854.9,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'order',
                key: 'o3',
                type: 'OrderPut',
                payload: '{"v":30}',
                headers: '["not", "an object"]',
                orderingKey: null,
              },
            ],
            backToBack: true,
            openMs: 793.3656909954734,
            rollback: false,
          },
        },
        {
          number: 7,
          at: 981.9,
          action: {
            kind: 'mishap',
            mishap: { to: 'queue', op: 'state write', from: null, delay: 115, happens: false, answer: 'none' },
          },
        },
        { number: 8, at: 1212.7, action: { kind: 'broker loss', topic: 'outbox.event.order', partition: 1, count: 4 } },
        { number: 28, at: 35966.9, action: { kind: 'drain', mapping: true } },
        { number: 33, at: 37657.1, action: { kind: 'crash', process: 'applier P', downMs: 716, noticedMs: 86 } },
        { number: 37, at: 37689.6, action: { kind: 'broker loss', topic: 'outbox.event.order', partition: 1, count: 4 } },
        {
          number: 39,
          at: 37693,
          action: {
            kind: 'mishap',
            mishap: { to: 'postgres', op: null, from: null, delay: 2792, happens: true, answer: 'given' },
          },
        },
        { number: 54, at: 39620.9, action: { kind: 'fingerprint changed' } },
      ],
    },
  },
  {
    what: "two processes' partitions waited in conflicts, one for what stood behind the other, and both lost their patience at once",
    schedule: {
      setup: { seed: 291868471, partitions: 2, maxChanges: 1, followsOthers: true, parks: true, restartedAtEnd: false },
      steps: [
        { number: 24, at: 5633.5, action: { kind: 'freeze', process: 'applier Q', ms: 8570, noticedMs: 2016 } },
        { number: 26, at: 5715.2, action: { kind: 'freeze', process: 'relay A', ms: 8156, noticedMs: 1600 } },
        {
          number: 32,
          at: 6842.8,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'holder1',
                type: 'CustomerPut',
                payload: '{"v":37,"handle":"h1"}',
                headers: null,
                orderingKey: null,
              },
            ],
            backToBack: false,
            openMs: 673.2903245748021,
            rollback: false,
          },
        },
        {
          number: 35,
          at: 6988.2,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'holder1',
                type: 'CustomerPut',
                payload: '{"v":43}',
                headers: null,
                orderingKey: null,
              },
              {
                aggregate: 'customer',
                key: 'takerh1',
                type: 'CustomerPut',
                payload: '{"v":44,"handle":"h1"}',
                headers: null,
                orderingKey: null,
              },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 38, at: 7006.1, action: { kind: 'outage', service: 'queue', ms: 4560 } },
        {
          number: 39,
          at: 7008.2,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'holder2',
                type: 'CustomerPut',
                payload: '{"v":48,"handle":"h2"}',
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
          number: 40,
          at: 7008.5,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'customer', key: 'c3', type: 'CustomerGone', payload: null, headers: null, orderingKey: null },
              {
                aggregate: 'order',
                key: 'o3',
                type: 'OrderPut',
                payload: '{"v":49}',
                headers: '{"traceparent":"49"}',
                orderingKey: null,
              },
            ],
            backToBack: false,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 41,
          at: 7011.2,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'holder2',
                type: 'CustomerPut',
                payload: '{"v":50}',
                headers: null,
                orderingKey: null,
              },
              {
                aggregate: 'customer',
                key: 'takerh2',
                type: 'CustomerPut',
                payload: '{"v":51,"handle":"h2"}',
                headers: null,
                orderingKey: null,
              },
            ],
            backToBack: false,
            openMs: 887.9979611772578,
            rollback: false,
          },
        },
        {
          number: 42,
          at: 7021.6,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'holder3',
                type: 'CustomerPut',
                payload: '{"v":52,"handle":"h3"}',
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
          number: 44,
          at: 7455.5,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'c0',
                type: 'CustomerPut',
                payload: '{"v":53}',
                headers: null,
                orderingKey: 'c-together',
              },
              {
                aggregate: 'customer',
                key: 'c1',
                type: 'CustomerPut',
                payload: '{"v":54}',
                headers: null,
                orderingKey: 'c-together',
              },
            ],
            backToBack: false,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 45,
          at: 7461.5,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'order', key: 'o5', type: 'OrderPut', payload: '{"v":55}', headers: null, orderingKey: null },
              {
                aggregate: 'customer',
                key: 'c4',
                type: 'CustomerPut',
                payload: '{"v":56}',
                headers: '{"traceparent":"56"}',
                orderingKey: null,
              },
              { aggregate: 'customer', key: 'c2', type: 'CustomerPut', payload: '{"v":57}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 59, at: 21766.5, action: { kind: 'rebalance', grudgingMs: 4181 } },
      ],
    },
  },
  {
    what: 'a contradiction and an event that waits behind it, in two processes, were parked together',
    schedule: {
      setup: { seed: 291873380, partitions: 2, maxChanges: 2, followsOthers: true, parks: true, restartedAtEnd: false },
      steps: [
        {
          number: 1,
          at: 30.8,
          action: {
            kind: 'mishap',
            mishap: { to: 'postgres', op: 'next', from: null, delay: 191, happens: false, answer: 'error' },
          },
        },
        {
          number: 3,
          at: 449.3,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'takerh1',
                type: 'CustomerPut',
                payload: '{"v":4,"handle":"h1"}',
                headers: null,
                orderingKey: null,
              },
            ],
            backToBack: false,
            openMs: 403.06909020175226,
            rollback: false,
          },
        },
        {
          number: 17,
          at: 3089.9,
          action: { kind: 'mishap', mishap: { to: 'postgres', op: null, from: null, delay: 229, happens: true, answer: 'none' } },
        },
        {
          number: 18,
          at: 3466.4,
          action: {
            kind: 'transaction',
            rows: [{ aggregate: 'order', key: 'o4', type: 'OrderPut', payload: '{"v":17}', headers: null, orderingKey: null }],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 22,
          at: 17138.6,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'holder3',
                type: 'CustomerPut',
                payload: '{"v":19,"handle":"h3"}',
                headers: null,
                orderingKey: null,
              },
            ],
            backToBack: false,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 33, at: 18563.4, action: { kind: 'freeze', process: 'relay B', ms: 3672, noticedMs: 3022 } },
        {
          number: 34,
          at: 18644.2,
          action: {
            kind: 'mishap',
            mishap: { to: 'queue', op: 'state write', from: null, delay: 5500, happens: true, answer: 'none' },
          },
        },
        { number: 35, at: 18644.2, action: { kind: 'stream breaks' } },
        {
          number: 36,
          at: 21144.2,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'order', key: 'o6', type: 'OrderGone', payload: null, headers: null, orderingKey: null },
              { aggregate: 'customer', key: 'c0', type: 'CustomerGone', payload: null, headers: null, orderingKey: 'c-together' },
              { aggregate: 'order', key: 'o2', type: 'OrderPut', payload: '{"v":1}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 37,
          at: 22644.2,
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
            backToBack: false,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 38, at: 23944.2, action: { kind: 'stream breaks' } },
        {
          number: 42,
          at: 25223.6,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'holder3',
                type: 'CustomerPut',
                payload: '{"v":34}',
                headers: null,
                orderingKey: null,
              },
              {
                aggregate: 'customer',
                key: 'takerh3',
                type: 'CustomerPut',
                payload: '{"v":35,"handle":"h3"}',
                headers: null,
                orderingKey: null,
              },
            ],
            backToBack: false,
            openMs: 653.1333858659491,
            rollback: false,
          },
        },
        { number: 45, at: 25877, action: { kind: 'freeze', process: 'applier Q', ms: 1520, noticedMs: 3578 } },
        {
          number: 46,
          at: 26211.6,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'order', key: 'o1', type: 'OrderPut', payload: '{"v":42}', headers: null, orderingKey: 'o-together' },
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
    what: 'a conflict waited for ever for records that the queue had lost since it arose',
    schedule: {
      setup: { seed: 291883535, partitions: 2, maxChanges: 2, followsOthers: true, parks: true, restartedAtEnd: true },
      steps: [
        {
          number: 6,
          at: 6340.7,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'order', key: 'o3', type: 'OrderPut', payload: '{"v":9}', headers: null, orderingKey: null },
              { aggregate: 'customer', key: 'c2', type: 'CustomerPut', payload: '{"v":10}', headers: null, orderingKey: null },
              { aggregate: 'customer', key: 'c3', type: 'CustomerPut', payload: '{"v":11}', headers: null, orderingKey: null },
              {
                aggregate: 'customer',
                key: 'c1',
                type: 'CustomerPut',
                payload: '{"v":13}',
                headers: null,
                orderingKey: 'c-together',
              },
              {
                aggregate: 'customer',
                key: 'c0',
                type: 'CustomerPut',
                payload: '{"v":14}',
                headers: '{"traceparent":"14"}',
                orderingKey: 'c-together',
              },
              {
                aggregate: 'customer',
                key: 'c0',
                type: 'CustomerPut',
                payload: '{"v":15}',
                headers: null,
                orderingKey: 'c-together',
              },
              { aggregate: 'customer', key: 'c2', type: 'CustomerGone', payload: null, headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o2', type: 'OrderGone', payload: null, headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o2', type: 'OrderPut', payload: '{"v":17}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 9,
          at: 6857.3,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'holder1',
                type: 'CustomerPut',
                payload: '{"v":19}',
                headers: null,
                orderingKey: null,
              },
              {
                aggregate: 'customer',
                key: 'takerh1',
                type: 'CustomerPut',
                payload: '{"v":20,"handle":"h1"}',
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
          number: 24,
          at: 12485.1,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'holder1',
                type: 'CustomerPut',
                payload: '{"v":3,"handle":"h1"}',
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
          number: 34,
          at: 14942.1,
          action: {
            kind: 'transaction',
            rows: [{ aggregate: 'customer', key: 'c3', type: 'CustomerGone', payload: null, headers: null, orderingKey: null }],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 35,
          at: 15346.7,
          action: {
            kind: 'transaction',
            rows: [{ aggregate: 'order', key: 'o3', type: 'OrderPut', payload: '{"v":49}', headers: null, orderingKey: null }],
            backToBack: false,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 36, at: 15757.3, action: { kind: 'rebalance', grudgingMs: 0 } },
        {
          number: 46,
          at: 17525.9,
          action: {
            kind: 'transaction',
            rows: [{ aggregate: 'order', key: 'o2', type: 'OrderPut', payload: '{"v":71}', headers: null, orderingKey: null }],
            backToBack: false,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 49,
          at: 17912.5,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'order',
                key: 'o5',
                type: 'OrderPut',
                payload: '{"v":74}',
                headers: '{"traceparent":"74"}',
                orderingKey: null,
              },
            ],
            backToBack: false,
            openMs: 809.6537888052408,
            rollback: false,
          },
        },
        { number: 50, at: 18014.1, action: { kind: 'sink joins', start: 'earliest' } },
        { number: 57, at: 20004.1, action: { kind: 'broker loss', topic: 'outbox.event.customer', partition: 1, count: 2 } },
      ],
    },
  },
  {
    what: 'a contradiction and an event that waits behind it, in one process, were parked together (written by hand)',
    schedule: {
      setup: { seed: 11, partitions: 2, maxChanges: 2, followsOthers: true, parks: true, restartedAtEnd: false },
      steps: [
        { number: 1, at: 1000, action: { kind: 'stop', process: 'applier Q', downMs: 300000 } },
        {
          number: 2,
          at: 1100,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'takerh1',
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
        {
          number: 3,
          at: 1200,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'holder3',
                type: 'CustomerPut',
                payload: '{"v":2,"handle":"h3"}',
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
          number: 4,
          at: 8000,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'holder1',
                type: 'CustomerPut',
                payload: '{"v":3,"handle":"h1"}',
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
          number: 5,
          at: 8010,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'holder3',
                type: 'CustomerPut',
                payload: '{"v":4}',
                headers: null,
                orderingKey: null,
              },
              {
                aggregate: 'customer',
                key: 'takerh3',
                type: 'CustomerPut',
                payload: '{"v":5,"handle":"h3"}',
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
    what: 'a conflict waited for ever for what no record was left of, at an offset that was skipped',
    schedule: {
      setup: { seed: 291883535, partitions: 2, maxChanges: 2, followsOthers: true, parks: true, restartedAtEnd: true },
      steps: [
        {
          number: 5,
          at: 5901.6,
          action: {
            kind: 'transaction',
            rows: [{ aggregate: 'order', key: 'o6', type: 'OrderPut', payload: '{"v":7}', headers: null, orderingKey: null }],
            backToBack: true,
            openMs: 827.3319831187837,
            rollback: false,
          },
        },
        {
          number: 9,
          at: 6857.3,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'holder1',
                type: 'CustomerPut',
                payload: '{"v":19}',
                headers: null,
                orderingKey: null,
              },
              {
                aggregate: 'customer',
                key: 'takerh1',
                type: 'CustomerPut',
                payload: '{"v":20,"handle":"h1"}',
                headers: null,
                orderingKey: null,
              },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 17, at: 7852.4, action: { kind: 'foreign record', topic: 'outbox.event.customer', partition: 1 } },
        {
          number: 24,
          at: 12485.1,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'holder1',
                type: 'CustomerPut',
                payload: '{"v":3,"handle":"h1"}',
                headers: null,
                orderingKey: null,
              },
            ],
            backToBack: false,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 36, at: 15757.3, action: { kind: 'rebalance', grudgingMs: 0 } },
        {
          number: 42,
          at: 16727.9,
          action: { kind: 'mishap', mishap: { to: 'queue', op: null, from: null, delay: 3631, happens: true, answer: 'none' } },
        },
        {
          number: 45,
          at: 17119.4,
          action: {
            kind: 'mishap',
            mishap: { to: 'queue', op: 'fetch', from: null, delay: 5543, happens: true, answer: 'none' },
          },
        },
        { number: 50, at: 18014.1, action: { kind: 'sink joins', start: 'earliest' } },
        { number: 57, at: 20004.1, action: { kind: 'broker loss', topic: 'outbox.event.customer', partition: 1, count: 2 } },
      ],
    },
  },
  {
    what: "a relay that had been replaced recorded its own count of a new topic's partitions, of which some had been added",
    schedule: {
      setup: { seed: 291818275, partitions: 2, maxChanges: 1, followsOthers: false, parks: true, restartedAtEnd: true },
      steps: [
        { number: 4, at: 580.4, action: { kind: 'freeze', process: 'relay A', ms: 6723, noticedMs: 785 } },
        { number: 22, at: 4949.3, action: { kind: 'partitions added', topic: 'outbox.event.order' } },
        {
          number: 24,
          at: 10268,
          action: {
            kind: 'transaction',
            rows: [{ aggregate: 'order', key: 'o2', type: 'OrderPut', payload: '{"v":33}', headers: null, orderingKey: null }],
            backToBack: false,
            openMs: 0,
            rollback: false,
          },
        },
      ],
    },
  },
  {
    what: '… and the next session published by that count what stood in other partitions already',
    schedule: {
      setup: { seed: 291864424, partitions: 2, maxChanges: 1, followsOthers: true, parks: true, restartedAtEnd: true },
      steps: [
        {
          number: 9,
          at: 944.6,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'customer', key: 'c4', type: 'CustomerPut', payload: '{"v":13}', headers: null, orderingKey: null },
              { aggregate: 'customer', key: 'c4', type: 'CustomerPut', payload: '{"v":14}', headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o1', type: 'OrderGone', payload: null, headers: null, orderingKey: 'o-together' },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 10, at: 957, action: { kind: 'freeze', process: 'relay B', ms: 7812, noticedMs: 3315 } },
        { number: 13, at: 1304.5, action: { kind: 'stream breaks' } },
        {
          number: 14,
          at: 1307,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'holder3',
                type: 'CustomerPut',
                payload: '{"v":16,"handle":"h3"}',
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
          number: 15,
          at: 1307.9,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'customer', key: 'c3', type: 'CustomerGone', payload: null, headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o0', type: 'OrderPut', payload: '{"v":17}', headers: null, orderingKey: 'o-together' },
              { aggregate: 'order', key: 'o2', type: 'OrderPut', payload: '{"v":18}', headers: null, orderingKey: null },
              { aggregate: 'customer', key: 'c4', type: 'CustomerPut', payload: '{"v":19}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 16,
          at: 1311.4,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'c0',
                type: 'CustomerPut',
                payload: '{"v":20}',
                headers: null,
                orderingKey: 'c-together',
              },
              { aggregate: 'order', key: 'o6', type: 'OrderGone', payload: null, headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 21,
          at: 1560.6,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'customer', key: 'c4', type: 'CustomerPut', payload: '{"v":24}', headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o4', type: 'OrderPut', payload: '{"v":25}', headers: null, orderingKey: null },
              { aggregate: 'customer', key: 'c3', type: 'CustomerPut', payload: '{"v":26}', headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o5', type: 'OrderGone', payload: null, headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 22,
          at: 1939.2,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'customer', key: 'c1', type: 'CustomerGone', payload: null, headers: null, orderingKey: 'c-together' },
            ],
            backToBack: true,
            openMs: 157.079265199136,
            rollback: false,
          },
        },
        {
          number: 25,
          at: 2841.6,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'c0',
                type: 'CustomerPut',
                payload: '{"v":30}',
                headers: '{"traceparent":"30"}',
                orderingKey: 'c-together',
              },
              {
                aggregate: 'customer',
                key: 'c0',
                type: 'CustomerPut',
                payload: '{"v":31}',
                headers: null,
                orderingKey: 'c-together',
              },
              { aggregate: 'order', key: 'o6', type: 'OrderGone', payload: null, headers: null, orderingKey: null },
              {
                aggregate: 'customer',
                key: 'c0',
                type: 'CustomerPut',
                payload: '{"v":32}',
                headers: null,
                orderingKey: 'c-together',
              },
              { aggregate: 'customer', key: 'c2', type: 'CustomerPut', payload: '{"v":33}', headers: null, orderingKey: null },
              {
                aggregate: 'customer',
                key: 'c1',
                type: 'CustomerPut',
                payload: '{"v":34}',
                headers: null,
                orderingKey: 'c-together',
              },
              { aggregate: 'order', key: 'o3', type: 'OrderPut', payload: '{"v":35}', headers: null, orderingKey: null },
              { aggregate: 'customer', key: 'c2', type: 'CustomerPut', payload: '{"v":36}', headers: null, orderingKey: null },
              { aggregate: 'customer', key: 'c3', type: 'CustomerPut', payload: '{"v":37}', headers: null, orderingKey: null },
              { aggregate: 'order', key: 'o6', type: 'OrderPut', payload: '{"v":38}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 26,
          at: 2981.2,
          action: {
            kind: 'transaction',
            rows: [{ aggregate: 'order', key: 'o3', type: 'OrderGone', payload: null, headers: null, orderingKey: null }],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 27,
          at: 3137.3,
          action: { kind: 'crash at', process: 'relay A', failpoint: 'read', downMs: 508, noticedMs: 5779 },
        },
        { number: 30, at: 3666.6, action: { kind: 'partitions added', topic: 'outbox.event.customer' } },
      ],
    },
  },
  {
    what: 'a partition in a conflict stood before the event that tells of a lost commit, and the judge did not wait for it',
    schedule: {
      setup: { seed: 293508563, partitions: 2, maxChanges: 1, followsOthers: false, parks: true, restartedAtEnd: true },
      steps: [
        {
          number: 17,
          at: 7131.5,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'holder2',
                type: 'CustomerPut',
                payload: '{"v":19,"handle":"h2"}',
                headers: null,
                orderingKey: null,
              },
            ],
            backToBack: true,
            openMs: 492.569577713497,
            rollback: false,
          },
        },
        {
          number: 21,
          at: 7243.3,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'takerh1',
                type: 'CustomerPut',
                payload: '{"v":21,"handle":"h1"}',
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
          number: 25,
          at: 7870.2,
          action: {
            kind: 'mishap',
            mishap: { to: 'queue', op: 'publish', from: null, delay: 5000, happens: true, answer: 'none' },
          },
        },
        {
          number: 26,
          at: 7870.2,
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
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 27, at: 8165.8, action: { kind: 'promotion', lagging: 1, ms: 50 } },
        {
          number: 28,
          at: 15355,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'customer', key: 'c3', type: 'CustomerPut', payload: '{"v":2}', headers: null, orderingKey: null },
              {
                aggregate: 'customer',
                key: 'c1',
                type: 'CustomerPut',
                payload: '{"v":3}',
                headers: null,
                orderingKey: 'c-together',
              },
              { aggregate: 'order', key: 'o6', type: 'OrderPut', payload: '{"v":4}', headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        {
          number: 36,
          at: 15552.1,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'takerh2',
                type: 'CustomerPut',
                payload: '{"v":25,"handle":"h2"}',
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
    what: 'a sink that begins at the end of the log began with lost events that stood behind later ones (by the judge)',
    schedule: {
      setup: { seed: 293459138, partitions: 1, maxChanges: 12, followsOthers: true, parks: true, restartedAtEnd: true },
      steps: [
        {
          number: 4,
          at: 1130.6,
          action: {
            kind: 'transaction',
            rows: [{ aggregate: 'customer', key: 'c4', type: 'CustomerGone', payload: null, headers: null, orderingKey: null }],
            backToBack: false,
            openMs: 859.6311994388234,
            rollback: false,
          },
        },
        { number: 6, at: 1464.6, action: { kind: 'sink joins', start: 'latest' } },
        {
          number: 8,
          at: 1586.5,
          action: { kind: 'mishap', mishap: { to: 'sink', op: 'apply', from: null, delay: 7517, happens: true, answer: 'none' } },
        },
        {
          number: 9,
          at: 1730.3,
          action: {
            kind: 'mishap',
            mishap: { to: 'queue', op: 'publish', from: null, delay: 5000, happens: true, answer: 'none' },
          },
        },
        {
          number: 10,
          at: 1730.3,
          action: {
            kind: 'transaction',
            rows: [
              { aggregate: 'customer', key: 'c4', type: 'CustomerPut', payload: '{"v":3}', headers: null, orderingKey: null },
            ],
            backToBack: false,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 11, at: 1871.4, action: { kind: 'promotion', lagging: 1, ms: 50 } },
        {
          number: 12,
          at: 8496.8,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'holder1',
                type: 'CustomerPut',
                payload: '{"v":4,"handle":"h1"}',
                headers: null,
                orderingKey: null,
              },
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
    what: 'a relay that was asked to stop found that the queue had lost its end, and left it to the next start (by the judge)',
    schedule: {
      setup: { seed: 293719403, partitions: 1, maxChanges: 1, followsOthers: true, parks: true, restartedAtEnd: false },
      steps: [
        {
          number: 1,
          at: 229.1,
          action: {
            kind: 'transaction',
            rows: [
              {
                aggregate: 'customer',
                key: 'c1',
                type: 'CustomerPut',
                payload: '{"v":2}',
                headers: null,
                orderingKey: 'c-together',
              },
              { aggregate: 'customer', key: 'c3', type: 'CustomerGone', payload: null, headers: null, orderingKey: null },
            ],
            backToBack: true,
            openMs: 0,
            rollback: false,
          },
        },
        { number: 7, at: 1435.6, action: { kind: 'broker loss', topic: 'outbox.event.customer', partition: 0, count: 5 } },
        { number: 13, at: 1629, action: { kind: 'stop', process: 'relay B', downMs: 1638 } },
        { number: 24, at: 3363.7, action: { kind: 'broker loss', topic: 'outbox.event.customer', partition: 0, count: 2 } },
      ],
    },
  },
]
