import { expect, test } from 'vitest'
import type { Catalog, Slot } from '../../src/postgres/catalog.ts'
import { settle } from '../../src/postgres/options.ts'
import { preflight } from '../../src/postgres/preflight.ts'

/** What the catalog would have to say for the findings that no server of the tests can be brought to say. */
const slot: Slot = {
  plugin: 'pgoutput',
  type: 'logical',
  database: 'shop',
  temporary: false,
  twoPhase: false,
  failover: true,
  synced: false,
  activePid: null,
  confirmed: 0x1000n,
  restart: 0x900n,
  currentWal: 0x2000n,
  retainedBytes: 0x1700n,
  safeWalSize: 1n << 30n,
  walStatus: 'reserved',
  invalidationReason: null,
}
const names = ['id', 'aggregate_type', 'aggregate_id', 'type', 'payload', 'headers', 'ordering_key', 'version']
const types = ['uuid', 'text', 'text', 'text', 'json', 'json', 'text', 'int4']
const healthy: Catalog = {
  version: 180_004,
  inRecovery: false,
  walEnd: 0x2000n,
  walLevel: 'logical',
  maxSlotWalKeepSize: 1n << 30n,
  idleSlotTimeout: 0,
  synchronizedStandbySlots: [],
  physicalSlots: [],
  maxReplicationSlots: 10,
  replicationSlots: 1,
  maxWalSenders: 10,
  walSenders: 0,
  database: 'shop',
  role: { name: 'relay', superuser: false, replication: true },
  backendPid: 1,
  outbox: {
    oid: 15,
    kind: 'r',
    persistence: 'p',
    columns: new Map(names.map((name, i) => [name, { type: types[i] as string, baseType: types[i] as string }])),
  },
  stateTable: { usable: true, written: true },
  pendingMigrations: [],
  publication: {
    publishes: ['insert'],
    allTables: false,
    viaRoot: false,
    tables: [{ schema: 'millrace', name: 'outbox', columns: names, filtered: false }],
    identity: '16/17',
  },
  slot,
  walPinnedBy: [],
}

const settings = settle({ name: 'shop', url: 'postgres://127.0.0.1/shop' })
const found = (changed: Partial<Catalog>, accept = false) =>
  preflight({ ...healthy, ...changed }, { ...settings, acceptUnlimitedWal: accept }).filter(({ level }) => level !== 'ok')

test('a healthy source has nothing but an ok', () => {
  expect(preflight(healthy, settings)).toEqual([
    { level: 'ok', subject: 'source', message: 'Postgres 18.4, database shop, slot millrace_shop', refuses: null },
  ])
})

const NOT_READY = 'MILLRACE_SOURCE_NOT_READY'
test.each<[string, Partial<Catalog>, RegExp, string]>([
  ['Postgres 14', { version: 140_019 }, /Postgres 14\.19, 15 is the oldest/, NOT_READY],
  ['an old minor of 15', { version: 150_013 }, /15\.13, which can lose rows/, NOT_READY],
  ['an old minor of 16', { version: 160_009 }, /16\.9/, NOT_READY],
  ['an old minor of 17', { version: 170_005 }, /17\.5/, NOT_READY],
  ['a standby', { inRecovery: true }, /standby/, 'MILLRACE_SOURCE_STANDBY'],
  ['wal_level', { walLevel: 'replica' }, /wal_level is replica/, NOT_READY],
  ['unlimited WAL', { maxSlotWalKeepSize: null }, /unlimited/, NOT_READY],
  ['no replication', { role: { name: 'r', superuser: false, replication: false } }, /may not replicate/, 'MILLRACE_SOURCE_AUTH'],
  ['no table', { outbox: null }, /does not exist/, 'MILLRACE_SCHEMA_OUTDATED'],
  ['a schema that is behind', { pendingMigrations: ['folding'] }, /lacks the migrations folding/, 'MILLRACE_SCHEMA_OUTDATED'],
  ['no state table', { stateTable: null }, /migrations have not been applied/, 'MILLRACE_SCHEMA_OUTDATED'],
  [
    'a slot that is lost',
    { slot: { ...slot, walStatus: 'lost', restart: null, invalidationReason: 'idle_timeout' } },
    /lost \(idle_timeout\)/,
    'MILLRACE_SLOT_LOST',
  ],
  ['a two-phase slot', { slot: { ...slot, twoPhase: true } }, /prepared transactions/, 'MILLRACE_SOURCE_CHANGED'],
  [
    'a slot of another database',
    { slot: { ...slot, database: 'other' } },
    /belongs to the database other/,
    'MILLRACE_SOURCE_CHANGED',
  ],
  ['no walsender left', { walSenders: 10 }, /WAL senders/, NOT_READY],
  [
    'no slot left',
    { slot: null, replicationSlots: 10, stateTable: { usable: true, written: false } },
    /replication slots/,
    'MILLRACE_SLOT_MISSING',
  ],
])('%s stops a start', (_, changed, message, code) => {
  const observed = found(changed)
  expect(observed.some((one) => one.level === 'blocker' && message.test(one.message) && one.remedy !== undefined)).toBe(true)
  expect(observed.find(({ refuses }) => refuses !== null)?.refuses).toBe(code)
})

test.each<[string, Partial<Catalog>, RegExp]>([
  ['unlimited WAL that was accepted', { maxSlotWalKeepSize: null }, /as accepted/],
  ['an idle slot time-out', { idleSlotTimeout: 3_600 }, /idle_replication_slot_timeout is 3600 s/],
  ['a superuser', { role: { name: 'postgres', superuser: true, replication: true } }, /superuser/],
  ['half of the limit retained', { slot: { ...slot, retainedBytes: 600n << 20n } }, /keeps 600 MiB of WAL, of 1024 MiB/],
  ['WAL about to be removed', { slot: { ...slot, walStatus: 'unreserved' } }, /beyond that it is lost/],
  [
    'much WAL without a limit',
    { maxSlotWalKeepSize: null, slot: { ...slot, safeWalSize: null, retainedBytes: 5n << 30n } },
    /keeps 5120 MiB of WAL$/,
  ],
  ['a slot that stays behind at a failover', { slot: { ...slot, failover: false } }, /does not follow to standbys/],
  [
    'a standby that may lag behind what is relayed',
    { physicalSlots: [{ name: 'b', active: true }] },
    /synchronized_standby_slots is empty/,
  ],
  [
    'a standby that the relay waits for',
    { physicalSlots: [{ name: 'b', active: false }], synchronizedStandbySlots: ['b'] },
    /no standby is connected to the slot b/,
  ],
  [
    'an old transaction',
    { walPinnedBy: [{ what: 'transaction', name: 'pid 7', ageSeconds: 1_200 }] },
    /transaction pid 7 has been open for 20 minutes/,
  ],
  [
    'an old prepared transaction',
    { walPinnedBy: [{ what: 'prepared transaction', name: 'x', ageSeconds: 660 }] },
    /prepared transaction x/,
  ],
])('%s is a warning with a remedy', (_, changed, message) => {
  const observed = found(changed, true)
  expect(observed.find((one) => message.test(one.message))).toMatchObject({
    level: 'warning',
    remedy: expect.any(String),
    refuses: null,
  })
  expect(observed.filter(({ level }) => level === 'blocker')).toEqual([])
})
