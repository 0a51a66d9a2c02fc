import pg from 'pg'
import { copySchema } from './copy-tables.ts'

/** The tables of the bookkeeping's schema. */
export const BOOKKEEPING = ['checkpoint', 'deleted', 'guard', 'target', 'parked', 'parked_event', 'parked_audit', 'copy'] as const

/**
 * The bookkeeping of Postgres sinks, as statements that may be repeated; `init` runs them, `init --sql sink` prints
 * them. Positions sort as text, which only holds in the collation "C".
 */
export function bookkeepingSql(schema: string): readonly string[] {
  const s = pg.escapeIdentifier(schema)
  const copies = pg.escapeIdentifier(copySchema(schema))
  // a copy's own checkpoints, markers and locks; `like` takes the columns that stand there when it is made
  const shared = (table: string): string =>
    `create unlogged table if not exists ${copies}.${table} (like ${s}.${table} including all)`
  return [
    `create schema if not exists ${s}`,
    `create table if not exists ${s}.checkpoint (
  sink text not null,
  source text not null,
  topic text not null,
  partition int not null,
  position text collate "C",
  "offset" bigint,
  owner_epoch bigint not null,
  updated_at timestamptz not null default clock_timestamp(),
  primary key (sink, topic, partition, source)
)`,
    // raised with each key that is parked no more: an owner that does not know it yet would park on behind nothing
    `alter table ${s}.checkpoint add column if not exists parked_version bigint not null default 0`,
    // how the applier began to read the partition: its own text
    `alter table ${s}.checkpoint add column if not exists beginning text`,
    // a key that was deleted, and at which position: an older event does not bring it back
    `create table if not exists ${s}.deleted (
  sink text not null,
  target text not null,
  key text collate "C" not null,
  position text collate "C" not null,
  deleted_at timestamptz not null,
  primary key (sink, target, key)
)`,
    `create index if not exists deleted_by_age on ${s}.deleted (deleted_at)`,
    // the position each row shows, for the tables with "guard: table"
    `create table if not exists ${s}.guard (
  sink text not null,
  target text not null,
  key text collate "C" not null,
  position text collate "C" not null,
  primary key (sink, target, key)
)`,
    // a table that is fed: from which source, by which mapping, and below which position deletes are forgotten. Its
    // row is the lock of those who may write the same rows from several partitions
    `create table if not exists ${s}.target (
  sink text not null,
  target text not null,
  source text,
  mapping json not null,
  forgotten_below text collate "C",
  primary key (sink, target)
)`,
    // a key that waits, one row each: "order" is its source and ordering key, `digest` the SHA-256 of it, `position` its
    // first event and `reason` why that cannot be applied. What comes from events is JSON in ASCII: such a text can be
    // kept in every encoding, whatever the event holds
    `create table if not exists ${s}.parked (
  sink text not null,
  topic text not null,
  partition int not null,
  digest bytea not null,
  "order" json not null,
  position text collate "C" not null,
  reason json not null,
  events bigint not null,
  bytes bigint not null,
  parked_at timestamptz not null default clock_timestamp(),
  primary key (sink, topic, partition, digest)
)`,
    // the events of a parked key, whole
    `create table if not exists ${s}.parked_event (
  sink text not null,
  topic text not null,
  partition int not null,
  digest bytea not null,
  position text collate "C" not null,
  "offset" bigint not null,
  event json not null,
  value bytea,
  reason json,
  bytes bigint not null,
  parked_at timestamptz not null default clock_timestamp(),
  primary key (sink, topic, partition, digest, position)
)`,
    // what people did about parked keys
    `create table if not exists ${s}.parked_audit (
  id bigint generated always as identity primary key,
  sink text not null,
  topic text not null,
  partition int not null,
  "order" json not null,
  at timestamptz not null default clock_timestamp(),
  action text not null,
  skipped text collate "C",
  actor json not null,
  note json,
  applied bigint not null,
  remaining bigint not null
)`,
    `create index if not exists parked_audit_of_sink on ${s}.parked_audit (sink, id)`,
    // a copy that is folded for a replay, a rebuild or a verification: `job` is the pipeline's own text
    `create table if not exists ${s}.copy (
  sink text primary key,
  job text not null,
  shape text not null,
  mapping json not null,
  remap boolean not null default false,
  selected boolean not null default false,
  wish text,
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp()
)`,
    `create schema if not exists ${copies}`,
    shared('checkpoint'),
    // whether the fold began with the very first record of the partition
    `alter table ${copies}.checkpoint add column if not exists whole boolean not null default false`,
    shared('deleted'),
    shared('target'),
    shared('parked'),
    // what parked events are about: the key of a row, with the first position, or a position alone where the key cannot be read
    `create unlogged table if not exists ${copies}.apart (
  sink text not null,
  target text not null,
  key text collate "C",
  position text collate "C" not null,
  unique (sink, target, key)
)`,
    `create index if not exists apart_by_position on ${copies}.apart (sink, target, position)`,
  ]
}
