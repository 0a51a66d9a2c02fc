import type pg from 'pg'
import { type Lsn, parseLsn } from '../core/position.ts'
import { pendingMigrations } from './migrate.ts'
import type { SourceSettings } from './options.ts'

/** What the server's catalog says about everything that capture stands on. Read only; needs no privilege. */
export interface Catalog {
  /** `server_version_num`: 150018 is 15.18 */
  readonly version: number
  readonly inRecovery: boolean
  readonly walEnd: Lsn
  readonly walLevel: string
  /** bytes; null: unlimited */
  readonly maxSlotWalKeepSize: bigint | null
  /** 0: never, or a server older than 18 (seconds) */
  readonly idleSlotTimeout: number
  /** the standbys' slots that failover slots wait for: Postgres 17 and later */
  readonly synchronizedStandbySlots: readonly string[]
  /** of standbys */
  readonly physicalSlots: readonly { readonly name: string; readonly active: boolean }[]
  readonly maxReplicationSlots: number
  readonly replicationSlots: number
  readonly maxWalSenders: number
  readonly walSenders: number
  readonly database: string
  readonly role: Role
  /** the process of the session as itself says; a pooler invents the one that it told at connect */
  readonly backendPid: number
  readonly outbox: OutboxTable | null
  readonly stateTable: { readonly usable: boolean; readonly written: boolean } | null
  /** names of the migrations that this package has and the database lacks */
  readonly pendingMigrations: readonly string[]
  readonly publication: Publication | null
  readonly slot: Slot | null
  readonly walPinnedBy: readonly OldTransaction[]
}

export interface Role {
  readonly name: string
  readonly superuser: boolean
  readonly replication: boolean
}

export interface OutboxTable {
  readonly oid: number
  readonly kind: string
  readonly persistence: string
  readonly columns: ReadonlyMap<string, { readonly type: string; readonly baseType: string }>
}

export interface Publication {
  readonly publishes: readonly string[]
  readonly allTables: boolean
  readonly viaRoot: boolean
  readonly tables: readonly PublishedTable[]
  /** of the publication and of the outbox's place in it: another one when either was altered or made anew */
  readonly identity: string
}

export interface PublishedTable {
  readonly schema: string
  readonly name: string
  readonly columns: readonly string[]
  readonly filtered: boolean
}

export interface Slot {
  readonly plugin: string | null
  readonly type: string
  readonly database: string | null
  readonly temporary: boolean
  readonly twoPhase: boolean
  /** whether it follows to standbys that synchronize slots; null: Postgres 16 and older cannot */
  readonly failover: boolean | null
  /** on a standby, and on what was one: it came from the primary */
  readonly synced: boolean
  readonly activePid: number | null
  readonly confirmed: Lsn | null
  readonly restart: Lsn | null
  readonly currentWal: Lsn
  /** of WAL that the slot keeps the server from removing (bytes) */
  readonly retainedBytes: bigint | null
  /** that may still be written before the slot is in danger (bytes); null: no limit, or lost already */
  readonly safeWalSize: bigint | null
  readonly walStatus: string | null
  /** Postgres 17 and later */
  readonly invalidationReason: string | null
}

export interface OldTransaction {
  readonly what: 'transaction' | 'prepared transaction'
  readonly name: string
  readonly ageSeconds: number
}

/** transactions that have written and are older than this keep `restart_lsn` back for longer than any of ours (s) */
const OLD_TRANSACTION = 600

export async function readCatalog(client: pg.Pool | pg.PoolClient, settings: SourceSettings): Promise<Catalog> {
  const { rows } = await client.query(SERVER, [])
  const server = rows[0] as Record<string, unknown>
  const stateTable = await readStateTable(client, settings)
  return {
    version: Number(server.version),
    inRecovery: server.in_recovery as boolean,
    walEnd: parseLsn(server.wal_end as string),
    walLevel: server.wal_level as string,
    maxSlotWalKeepSize: Number(server.max_slot_wal_keep_mb) < 0 ? null : BigInt(server.max_slot_wal_keep_mb as string) << 20n,
    idleSlotTimeout: Number(server.idle_slot_timeout ?? 0),
    synchronizedStandbySlots: server.synchronized_standby_slots as string[],
    physicalSlots: server.physical_slots as Catalog['physicalSlots'],
    maxReplicationSlots: Number(server.max_replication_slots),
    replicationSlots: Number(server.replication_slots),
    maxWalSenders: Number(server.max_wal_senders),
    walSenders: Number(server.wal_senders),
    database: server.database as string,
    role: { name: server.role as string, superuser: server.superuser as boolean, replication: server.replication as boolean },
    backendPid: Number(server.pid),
    outbox: await readOutbox(client, settings),
    stateTable,
    pendingMigrations: stateTable?.usable === true ? (await pendingMigrations(client)).map(({ name }) => name) : [],
    publication: await readPublication(client, settings),
    slot: await readSlot(client, settings.slot),
    walPinnedBy: await readOldTransactions(client),
  }
}

const SERVER = `
  select
    current_setting('server_version_num') as version,
    pg_is_in_recovery() as in_recovery,
    (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end)::text as wal_end,
    current_setting('wal_level') as wal_level,
    (select setting from pg_settings where name = 'max_slot_wal_keep_size') as max_slot_wal_keep_mb,
    (select extract(epoch from (setting || unit)::interval) from pg_settings where name = 'idle_replication_slot_timeout') as idle_slot_timeout,
    array(select trim(both ' "' from name) from unnest(string_to_array(current_setting('synchronized_standby_slots', true), ',')) name) as synchronized_standby_slots,
    (select coalesce(jsonb_agg(jsonb_build_object('name', slot_name, 'active', active) order by slot_name), '[]')
     from pg_replication_slots where slot_type = 'physical' and not temporary) as physical_slots,
    current_setting('max_replication_slots') as max_replication_slots,
    (select count(*) from pg_replication_slots) as replication_slots,
    current_setting('max_wal_senders') as max_wal_senders,
    (select count(*) from pg_stat_activity where backend_type = 'walsender') as wal_senders,
    current_database() as database,
    current_user as role,
    role.rolsuper as superuser,
    role.rolsuper or role.rolreplication or exists (
      select from pg_roles managed where managed.rolname = 'rds_replication' and pg_has_role(current_user, managed.oid, 'member')
    ) as replication,
    pg_backend_pid() as pid
  from pg_roles role where role.rolname = current_user`

async function readOutbox(client: pg.Pool | pg.PoolClient, { table }: SourceSettings): Promise<OutboxTable | null> {
  const { rows } = await client.query(
    `select c.oid, c.relkind::text as kind, c.relpersistence::text as persistence, a.attname::text as name, t.typname::text as type,
            coalesce(base.typname, t.typname)::text as base_type
     from pg_class c
     join pg_namespace n on n.oid = c.relnamespace
     left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
     left join pg_type t on t.oid = a.atttypid
     left join pg_type base on base.oid = t.typbasetype and t.typtype = 'd'
     where n.nspname = $1 and c.relname = $2`,
    [table.schema, table.name],
  )
  if (rows.length === 0) return null
  return {
    oid: rows[0].oid,
    kind: rows[0].kind,
    persistence: rows[0].persistence,
    columns: new Map(
      rows.filter((row) => row.name !== null).map((row) => [row.name, { type: row.type, baseType: row.base_type }]),
    ),
  }
}

async function readStateTable(client: pg.Pool | pg.PoolClient, { name }: SourceSettings): Promise<Catalog['stateTable']> {
  const { rows } = await client.query(
    `select has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select, insert, update') as usable
     from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = 'millrace' and c.relname = 'relay_state'`,
  )
  if (rows.length === 0) return null
  if (!rows[0].usable) return { usable: false, written: false }
  const state = await client.query('select 1 from millrace.relay_state where source = $1', [name])
  return { usable: true, written: state.rows.length > 0 }
}

/**
 * Of the publication `p` and of the outbox's place in it. `xmin` changes with each `alter publication` and outlives
 * freezing: an altered publication that was put back has left out what was written in between.
 */
const PUBLICATION_IDENTITY = `p.oid || '.' || p.xmin || '/' || coalesce((
              select r.oid from pg_publication_rel r
              join pg_class c on c.oid = r.prrelid
              join pg_namespace n on n.oid = c.relnamespace
              where r.prpubid = p.oid and n.nspname = $2 and c.relname = $3
            ), 0)`

/** as `Publication.identity`; null: there is none of the name */
export async function readPublicationIdentity(client: pg.Pool | pg.PoolClient, settings: SourceSettings): Promise<string | null> {
  const { publication, table } = settings
  const { rows } = await client.query(`select ${PUBLICATION_IDENTITY} as identity from pg_publication p where p.pubname = $1`, [
    publication,
    table.schema,
    table.name,
  ])
  return rows[0]?.identity ?? null
}

async function readPublication(client: pg.Pool | pg.PoolClient, settings: SourceSettings): Promise<Publication | null> {
  const { rows } = await client.query(
    `select p.puballtables as all_tables, p.pubviaroot as via_root,
            p.pubinsert as insert, p.pubupdate as update, p.pubdelete as delete, p.pubtruncate as truncate,
            ${PUBLICATION_IDENTITY} as identity
     from pg_publication p where p.pubname = $1`,
    [settings.publication, settings.table.schema, settings.table.name],
  )
  const row = rows[0]
  if (row === undefined) return null
  const tables = await client.query(
    `select schemaname::text as schema, tablename::text as name, attnames::text[] as columns, rowfilter is not null as filtered
     from pg_publication_tables where pubname = $1 order by 1, 2 limit 100`,
    [settings.publication],
  )
  return {
    publishes: ['insert', 'update', 'delete', 'truncate'].filter((action) => row[action] === true),
    allTables: row.all_tables,
    viaRoot: row.via_root,
    tables: tables.rows as PublishedTable[],
    identity: row.identity,
  }
}

/** One slot of the server, whatever it is; null: there is none of the name. */
export async function readSlot(client: pg.Pool | pg.PoolClient, slot: string): Promise<Slot | null> {
  const { rows } = await client.query(
    `select to_jsonb(s) as slot, (pg_wal_lsn_diff(wal.lsn, s.restart_lsn))::bigint::text as retained, wal.lsn::text as wal
     from pg_replication_slots s,
       lateral (select case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end as lsn) wal
     where s.slot_name = $1`,
    [slot],
  )
  if (rows.length === 0) return null
  // which columns there are depends on the server's version
  const found = rows[0].slot as Record<string, string | number | boolean | null | undefined>
  const lsn = (value: unknown): Lsn | null => (typeof value === 'string' ? parseLsn(value) : null)
  const count = (value: unknown): bigint | null => (value === null || value === undefined ? null : BigInt(value as string))
  return {
    plugin: (found.plugin ?? null) as string | null,
    type: found.slot_type as string,
    database: (found.database ?? null) as string | null,
    temporary: found.temporary === true,
    twoPhase: found.two_phase === true,
    failover: (found.failover ?? null) as boolean | null,
    synced: found.synced === true,
    activePid: (found.active_pid ?? null) as number | null,
    confirmed: lsn(found.confirmed_flush_lsn),
    restart: lsn(found.restart_lsn),
    currentWal: parseLsn(rows[0].wal),
    retainedBytes: count(rows[0].retained),
    safeWalSize: count(found.safe_wal_size),
    walStatus: (found.wal_status ?? null) as string | null,
    invalidationReason: (found.invalidation_reason ?? null) as string | null,
  }
}

/** Decoding must be able to go back to where the oldest writing transaction began, in whatever database it is. */
async function readOldTransactions(client: pg.Pool | pg.PoolClient): Promise<readonly OldTransaction[]> {
  const { rows } = await client.query(
    `select * from (
       select 'transaction' as what, 'pid ' || pid as name, extract(epoch from now() - xact_start)::float8 as "ageSeconds"
       from pg_stat_activity where backend_xid is not null and xact_start is not null
       union all
       select 'prepared transaction', gid, extract(epoch from now() - prepared)::float8 from pg_prepared_xacts
     ) t where "ageSeconds" > $1 order by "ageSeconds" desc limit 5`,
    [OLD_TRANSACTION],
  )
  return rows as OldTransaction[]
}
