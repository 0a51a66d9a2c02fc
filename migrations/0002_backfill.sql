-- Where backfills stand: each chunk of rows becomes events, and moves its backfill on, in one transaction.

create table millrace.backfill (
  name text primary key,
  -- which rows are read, in which order: another one needs another name
  definition text not null,
  -- the key of the last row that was read, as a JSON array of texts; null before the first
  after text,
  rows_read bigint not null default 0,
  events bigint not null default 0,
  started_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  finished_at timestamptz
);

comment on table millrace.backfill is 'where backfills stand; a row may be removed once its backfill is finished';

insert into millrace.migrations (version, name) values (2, 'backfill');
