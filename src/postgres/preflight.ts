import type { ErrorCode } from '../core/errors.ts'
import { RESUME } from '../core/failover.ts'
import type { Finding } from '../core/finding.ts'
import type { Catalog, OutboxTable, Publication, Slot } from './catalog.ts'
import type { OutboxColumns, SourceSettings } from './options.ts'
import { describeColumns, publicationStatement, quoted } from './publication.ts'

/** A finding, and the code with which a start refuses because of it; null: a start goes on. */
export interface Observation extends Finding {
  readonly refuses: ErrorCode | null
}

/** the first minor releases with the fix of lost rows after `alter publication … add table` (August 2025) */
const FIRST_SAFE_MINOR: Readonly<Record<number, number>> = { 15: 14, 16: 10, 17: 6 }
const OLDEST_MAJOR = 15
/** the first version whose slots can follow to standbys */
const FAILOVER_SLOTS = 170_000
const TEXT_TYPES = ['text', 'varchar', 'bpchar']
const ID_TYPES = [...TEXT_TYPES, 'uuid', 'int2', 'int4', 'int8', 'numeric']
const TYPES: Readonly<Record<keyof OutboxColumns, readonly string[]>> = {
  id: ID_TYPES,
  aggregateType: TEXT_TYPES,
  aggregateId: ID_TYPES,
  type: TEXT_TYPES,
  payload: ['json', 'jsonb', 'text', 'varchar', 'bytea'],
  headers: ['json', 'jsonb', 'text', 'varchar'],
  orderingKey: ID_TYPES,
  version: ['int2', 'int4', 'int8', ...TEXT_TYPES],
}
export const SET_WAL_LEVEL =
  "alter system set wal_level = 'logical', then restart the server (on managed services: the parameter for logical replication)"
/** retained WAL worth a warning when nothing limits it (bytes) */
const MUCH_WAL = 4n << 30n

/**
 * What stands in the way of a relay, and what a person should know, from what the catalog says. Pure. `check` shows
 * all of it; a start refuses at the first that has a code.
 */
export function preflight(catalog: Catalog, settings: SourceSettings): readonly Observation[] {
  const found: Observation[] = [
    ...server(catalog, settings),
    ...role(catalog),
    ...outbox(catalog.outbox, settings),
    ...schema(catalog),
    ...publication(catalog, settings),
    ...slot(catalog, settings),
    ...pinned(catalog),
  ]
  if (!found.some(({ level }) => level === 'blocker'))
    found.unshift(observe('ok', `Postgres ${versionText(catalog.version)}, database ${catalog.database}, slot ${settings.slot}`))
  return found
}

function observe(level: Finding['level'], message: string, remedy?: string, refuses: ErrorCode | null = null): Observation {
  return { level, subject: 'source', message, ...(remedy !== undefined && { remedy }), refuses }
}

function blocker(message: string, remedy: string, refuses: ErrorCode = 'MILLRACE_SOURCE_NOT_READY'): Observation {
  return observe('blocker', message, remedy, refuses)
}

function* server(catalog: Catalog, settings: SourceSettings): Generator<Observation> {
  const major = Math.floor(catalog.version / 10_000)
  const minor = catalog.version % 10_000
  const safe = FIRST_SAFE_MINOR[major] ?? 0
  if (major < OLDEST_MAJOR)
    yield blocker(
      `the server is Postgres ${versionText(catalog.version)}, ${OLDEST_MAJOR} is the oldest that works`,
      'upgrade the server',
    )
  else if (minor < safe)
    yield blocker(
      `the server is Postgres ${versionText(catalog.version)}, which can lose rows of a publication that is altered while rows are written`,
      `update it to ${major}.${safe} or later (August 2025)`,
    )
  if (catalog.inRecovery)
    yield blocker(
      'the server is a standby: it follows another one, and its stream is not the source of truth',
      'give the url of the primary; a relay goes on by itself once this server is promoted, or the address leads to the primary',
      'MILLRACE_SOURCE_STANDBY',
    )
  if (catalog.walLevel !== 'logical')
    yield blocker(`wal_level is ${catalog.walLevel}, logical decoding needs logical`, SET_WAL_LEVEL)
  if (catalog.maxSlotWalKeepSize === null)
    yield settings.acceptUnlimitedWal
      ? observe(
          'warning',
          'max_slot_wal_keep_size is unlimited, as accepted: a relay that stays away can fill the disk of the server',
          'watch millrace_slot_retained_bytes',
        )
      : blocker(
          'max_slot_wal_keep_size is unlimited: a relay that stays away would fill the disk of the server',
          "alter system set max_slot_wal_keep_size = '64GB' (what the disk can spare; then select pg_reload_conf()), or say source.acceptUnlimitedWal: true",
        )
  if (catalog.idleSlotTimeout > 0)
    yield observe(
      'warning',
      `idle_replication_slot_timeout is ${catalog.idleSlotTimeout} s: a relay that stays away for longer loses its slot, and events with it`,
      'alter system set idle_replication_slot_timeout = 0; max_slot_wal_keep_size is the better guard of the disk',
    )
}

function* role({ role }: Catalog): Generator<Observation> {
  if (!role.replication)
    yield blocker(
      `the role ${role.name} may not replicate`,
      `alter role ${quoted(role.name)} replication (on Amazon RDS: grant rds_replication to ${quoted(role.name)})`,
      'MILLRACE_SOURCE_AUTH',
    )
  if (role.superuser)
    yield observe(
      'warning',
      `the role ${role.name} is a superuser, which a relay does not need`,
      'millrace init --sql relay prints the role it needs',
    )
}

function* outbox(table: OutboxTable | null, { table: name, columns }: SourceSettings): Generator<Observation> {
  const full = `${name.schema}.${name.name}`
  if (table === null) {
    yield blocker(
      `the outbox table ${full} does not exist`,
      'run millrace init, or correct source.outbox.table',
      'MILLRACE_SCHEMA_OUTDATED',
    )
    return
  }
  if (table.kind !== 'r' && table.kind !== 'p') yield blocker(`${full} is not a table`, 'name a table: views have no WAL')
  if (table.persistence !== 'p')
    yield blocker(
      `${full} is ${table.persistence === 'u' ? 'unlogged' : 'temporary'}: its rows are not in the WAL`,
      `alter table ${full} set logged`,
    )
  for (const [part, types] of Object.entries(TYPES) as [keyof OutboxColumns, readonly string[]][]) {
    const column = columns[part]
    if (column == null) continue
    const { type, baseType } = table.columns.get(column) ?? {}
    if (type === undefined || baseType === undefined)
      yield blocker(
        `the outbox table ${full} has no column ${column} (for ${part})`,
        'run millrace init if the table is ours, else correct source.outbox.columns',
        'MILLRACE_SCHEMA_OUTDATED',
      )
    // a domain over bytea does not show its base type in the stream
    else if (!types.includes(baseType) || (baseType === 'bytea' && type !== 'bytea'))
      yield blocker(
        `column ${column} of ${full} has the type ${type}, expected ${types.join(', ')} (for ${part})`,
        'correct source.outbox.columns',
      )
  }
}

function* schema({ stateTable, pendingMigrations }: Catalog): Generator<Observation> {
  if (stateTable === null)
    yield blocker(
      'the table millrace.relay_state does not exist: the migrations have not been applied',
      'run millrace init',
      'MILLRACE_SCHEMA_OUTDATED',
    )
  else if (!stateTable.usable)
    yield blocker(
      'the role may not read and write millrace.relay_state',
      'millrace init --sql relay prints the grants',
      'MILLRACE_SOURCE_AUTH',
    )
  else if (pendingMigrations.length > 0)
    yield blocker(
      `the schema millrace lacks the migrations ${pendingMigrations.join(', ')}`,
      'run millrace init',
      'MILLRACE_SCHEMA_OUTDATED',
    )
}

function* publication({ publication, slot, outbox }: Catalog, settings: SourceSettings): Generator<Observation> {
  const name = settings.publication
  if (publication === null) {
    if (slot === null)
      yield observe('warning', `there is no publication ${name} yet`, 'millrace init makes it', 'MILLRACE_PUBLICATION_MISSING')
    else
      yield blocker(
        `the publication ${name} is gone, and the slot ${settings.slot} is there: one made now would be younger than the slot, whose rows until then would be skipped`,
        RESUME,
        'MILLRACE_PUBLICATION_MISSING',
      )
    return
  }
  const faults = publicationFaults(publication, outbox, settings)
  if (faults.length > 0)
    yield blocker(
      `the publication ${name} ${faults.join(', ')}`,
      `it must be as this makes it: ${publicationStatement(settings, outbox?.kind === 'p')}`,
    )
}

/** What is wrong with the publication, as ends of a sentence. */
export function publicationFaults(found: Publication, outbox: OutboxTable | null, settings: SourceSettings): readonly string[] {
  const { table, columns } = settings
  const faults: string[] = []
  if (found.allTables) faults.push('publishes all tables')
  const others = found.tables.filter(({ schema, name }) => schema !== table.schema || name !== table.name)
  if (!found.allTables && others.length > 0)
    faults.push(
      `publishes ${others
        .map(({ schema, name }) => `${schema}.${name}`)
        .slice(0, 5)
        .join(', ')}`,
    )
  const ours = found.tables.find(({ schema, name }) => schema === table.schema && name === table.name)
  if (ours === undefined) faults.push(`does not publish ${table.schema}.${table.name}`)
  else {
    if (ours.filtered) faults.push('has a row filter')
    const missing = describeColumns(columns).filter(
      (column) => outbox?.columns.has(column) === true && !ours.columns.includes(column),
    )
    if (missing.length > 0) faults.push(`leaves out the columns ${missing.join(', ')}`)
  }
  if (found.publishes.join() !== 'insert')
    faults.push(`publishes ${found.publishes.join(', ') || 'no operation'}, expected insert only`)
  if (outbox?.kind === 'p' && !found.viaRoot) faults.push('does not publish via the partition root')
  return faults
}

function* slot(catalog: Catalog, settings: SourceSettings): Generator<Observation> {
  const { slot: found } = catalog
  const name = settings.slot
  if (found === null) {
    yield catalog.stateTable?.written === true
      ? blocker(
          `the slot ${name} is gone, and a relay has used it: somebody dropped it, or this server was a standby when it was promoted, ${catalog.version < FAILOVER_SLOTS ? 'and before Postgres 17 slots do not follow' : 'and the slot had not followed'}`,
          RESUME,
          'MILLRACE_SLOT_MISSING',
        )
      : observe('warning', `there is no slot ${name} yet`, 'millrace init makes it', 'MILLRACE_SLOT_MISSING')
    if (catalog.replicationSlots >= catalog.maxReplicationSlots)
      yield blocker(
        `all ${catalog.maxReplicationSlots} replication slots of the server are taken`,
        'drop an abandoned one, or raise max_replication_slots and restart the server',
      )
  } else yield* slotFaults(found, catalog, name)
  if (found?.activePid == null && catalog.walSenders >= catalog.maxWalSenders)
    yield blocker(
      `all ${catalog.maxWalSenders} WAL senders of the server are busy`,
      'end one, or raise max_wal_senders and restart the server',
    )
}

function* slotFaults(slot: Slot, catalog: Catalog, name: string): Generator<Observation> {
  const foreign = slotForeignness(slot, catalog.database)
  if (foreign !== null) {
    yield blocker(
      `the slot ${name} ${foreign}`,
      'name a slot of its own for this pipeline: source.slot',
      'MILLRACE_SOURCE_CHANGED',
    )
    return
  }
  if (slot.walStatus === 'lost' || slot.restart === null) {
    const reason = slot.invalidationReason === null ? '' : ` (${slot.invalidationReason})`
    yield blocker(
      `the slot ${name} is lost${reason}: the server removed WAL that it needed, and events with it`,
      RESUME,
      'MILLRACE_SLOT_LOST',
    )
    return
  }
  yield* failover(slot, catalog, name)
  const retained = slot.retainedBytes ?? 0n
  const limit = catalog.maxSlotWalKeepSize
  if (slot.walStatus === 'unreserved' || (limit !== null && retained * 2n > limit))
    yield observe(
      'warning',
      `the slot ${name} keeps ${megabytes(retained)} of WAL, of ${megabytes(limit ?? 0n)} that it may: beyond that it is lost`,
      'see why the relay is behind, or raise max_slot_wal_keep_size',
    )
  else if (limit === null && retained > MUCH_WAL)
    yield observe(
      'warning',
      `the slot ${name} keeps ${megabytes(retained)} of WAL`,
      slot.activePid === null ? 'start the relay, or drop the slot: millrace teardown --slot' : 'see why the relay is behind',
    )
}

/** What keeps a promoted standby from continuing the stream. */
function* failover(slot: Slot, catalog: Catalog, name: string): Generator<Observation> {
  if (slot.failover === null) return
  const { physicalSlots: standbys, synchronizedStandbySlots: waitedFor } = catalog
  if (!slot.failover)
    yield observe(
      'warning',
      `the slot ${name} does not follow to standbys: a promoted one could not continue the stream`,
      `while no relay runs: psql "dbname=${catalog.database} replication=database" -c 'ALTER_REPLICATION_SLOT ${name} (FAILOVER true)'`,
    )
  else if (waitedFor.length === 0 && standbys.length > 0)
    yield observe(
      'warning',
      'synchronized_standby_slots is empty: what a standby has not received yet may be relayed, and if that one is promoted, the relay halts',
      `alter system set synchronized_standby_slots = '${standbys.map((standby) => standby.name).join(', ')}' (those that may be promoted); then select pg_reload_conf()`,
    )
  for (const waited of slot.failover ? waitedFor : [])
    if (!standbys.some((standby) => standby.name === waited && standby.active))
      yield observe(
        'warning',
        `no standby is connected to the slot ${waited}, for which synchronized_standby_slots makes the relay wait: nothing is relayed meanwhile`,
        'bring the standby back, or take it out of synchronized_standby_slots',
      )
}

/** Why the slot cannot be ours, as the end of a sentence; null: it can. */
export function slotForeignness(slot: Slot, database: string): string | null {
  if (slot.type !== 'logical') return `is a ${slot.type} one`
  if (slot.database !== database) return `belongs to the database ${slot.database}`
  if (slot.plugin !== 'pgoutput') return `decodes with ${slot.plugin}, not with pgoutput`
  if (slot.temporary) return 'is temporary'
  if (slot.twoPhase) return 'decodes prepared transactions, which would publish what may yet roll back'
  return null
}

function* pinned({ walPinnedBy }: Catalog): Generator<Observation> {
  for (const { what, name, ageSeconds } of walPinnedBy)
    yield observe(
      'warning',
      `the ${what} ${name} has been open for ${Math.round(ageSeconds / 60)} minutes: the server must keep all WAL since then`,
      what === 'transaction' ? 'end it, and set idle_in_transaction_session_timeout' : 'commit prepared or rollback prepared',
    )
}

export function versionText(version: number): string {
  return `${Math.floor(version / 10_000)}.${version % 10_000}`
}

function megabytes(bytes: bigint): string {
  return `${bytes >> 20n} MiB`
}
