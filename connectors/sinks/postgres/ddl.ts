import pg from 'pg'

/**
 * The bookkeeping of Postgres sinks, as statements that may be repeated; `init` runs them, `init --sql sink` prints
 * them. Positions sort as text, which only holds in the collation "C".
 */
export function bookkeepingSql(schema: string): readonly string[] {
  const s = pg.escapeIdentifier(schema)
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
  ]
}
