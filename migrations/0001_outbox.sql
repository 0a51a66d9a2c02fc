-- Millrace's tables and functions in a source database. Runs inside one transaction; needs no superuser, extension or
-- event trigger. With nothing but this applied, and no relay, the database accepts events for ever.

do $$
begin
  -- an owner that may not create schemas is given an empty one
  if to_regnamespace('millrace') is null then
    create schema millrace;
  end if;
end
$$;

create table millrace.migrations (
  version int primary key,
  name text not null,
  applied_at timestamptz not null default now()
);

-- Ids sort by time, so that inserts stay at the right edge of the index and housekeeping at the left one.
do $$
begin
  if to_regprocedure('pg_catalog.uuidv7()') is not null then
    create function millrace.new_id() returns uuid language sql volatile parallel safe return uuidv7();
  else
    -- RFC 9562 version 7: 48 bits of Unix time in ms over a random uuid of version 4, whose version 0100 becomes 0111
    create function millrace.new_id() returns uuid language sql volatile parallel safe return
      encode(
        set_bit(
          set_bit(
            overlay(
              uuid_send(gen_random_uuid())
              placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
              from 1 for 6
            ),
            52, 1
          ),
          53, 1
        ),
        'hex'
      )::uuid;
  end if;
end
$$;

-- Refuses at the writer what could never be relayed, under the name of the rule that was broken. One function and not
-- seven check constraints, because Postgres parses and plans each of those anew for every insert.
create function millrace.check_event(
  aggregate_type text,
  aggregate_id text,
  type text,
  payload json,
  headers json,
  ordering_key text,
  version int,
  max_bytes int
) returns boolean language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
declare
  rule text;
  expected text;
begin
  if aggregate_type ~ '^[A-Za-z0-9._-]{1,120}$'
    and octet_length(aggregate_id) between 1 and 512
    and octet_length(type) between 1 and 512
    and (ordering_key is null or octet_length(ordering_key) between 1 and 512)
    and version > 0
    and coalesce(octet_length(payload::text), 0) + coalesce(octet_length(headers::text), 0) <= max_bytes
    and (
      headers is null
      or json_typeof(headers) = 'object' and not jsonb_path_exists(
        headers::jsonb,
        '$.keyvalue() ? (@.value.type() != "string" || @.key == "" || @.key == "id" || @.key == "type"
          || @.key == "schema-version" || @.key starts with "millrace-")'
      )
    )
  then
    return true;
  end if;

  if aggregate_type !~ '^[A-Za-z0-9._-]{1,120}$' then
    rule := 'outbox_aggregate_type';
    expected := 'aggregate_type must match ^[A-Za-z0-9._-]{1,120}$: topics are named after it';
  elsif octet_length(aggregate_id) not between 1 and 512 then
    rule := 'outbox_aggregate_id';
    expected := 'aggregate_id must be 1 to 512 bytes';
  elsif octet_length(type) not between 1 and 512 then
    rule := 'outbox_type';
    expected := 'type must be 1 to 512 bytes';
  elsif octet_length(ordering_key) not between 1 and 512 then
    rule := 'outbox_ordering_key';
    expected := 'ordering_key must be null or 1 to 512 bytes';
  elsif version <= 0 then
    rule := 'outbox_version';
    expected := 'version must be 1 or more';
  elsif coalesce(octet_length(payload::text), 0) + coalesce(octet_length(headers::text), 0) > max_bytes then
    rule := 'outbox_event_size';
    expected := format(
      'payload and headers are %s bytes together, at most %s are accepted',
      coalesce(octet_length(payload::text), 0) + coalesce(octet_length(headers::text), 0),
      max_bytes
    );
  else
    rule := 'outbox_headers';
    expected := 'headers must be a flat JSON object of strings, without the names id, type, schema-version and millrace-*';
  end if;
  raise exception using
    errcode = 'check_violation', schema = 'millrace', table = 'outbox', constraint = rule,
    message = format('the event could never be relayed: %s', expected);
end
$$;

create table millrace.outbox (
  id uuid primary key default millrace.new_id(),
  aggregate_type text not null,
  aggregate_id text not null,
  type text not null,
  -- json keeps the text as it was written; null is a tombstone, JSON null a payload
  payload json,
  headers json,
  -- null: the aggregate id orders
  ordering_key text,
  version int not null default 1,
  created_at timestamptz not null default clock_timestamp(),
  constraint outbox_event check (
    millrace.check_event(aggregate_type, aggregate_id, type, payload, headers, ordering_key, version, 1000000)
  )
) with (autovacuum_vacuum_scale_factor = 0.05);

create function millrace.emit(
  aggregate_type text,
  aggregate_id text,
  type text,
  payload json,
  headers json default null,
  ordering_key text default null,
  version int default 1,
  id uuid default null
) returns uuid language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
  event_id uuid := coalesce(id, millrace.new_id());
begin
  if payload is null then
    raise exception using
      errcode = 'null_value_not_allowed',
      message = 'the payload is null: millrace.emit takes JSON, of which ''null'' is one',
      hint = 'A null payload is a tombstone: call millrace.tombstone.';
  end if;
  -- not "returning id": that takes the right to read the outbox, which a writer does not need
  insert into millrace.outbox (id, aggregate_type, aggregate_id, type, payload, headers, ordering_key, version)
  values (event_id, aggregate_type, aggregate_id, type, payload, headers, ordering_key, coalesce(version, 1));
  return event_id;
end
$$;

create function millrace.tombstone(
  aggregate_type text,
  aggregate_id text,
  type text,
  headers json default null,
  ordering_key text default null,
  version int default 1,
  id uuid default null
) returns uuid language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
  event_id uuid := coalesce(id, millrace.new_id());
begin
  insert into millrace.outbox (id, aggregate_type, aggregate_id, type, payload, headers, ordering_key, version)
  values (event_id, aggregate_type, aggregate_id, type, null, headers, ordering_key, coalesce(version, 1));
  return event_id;
end
$$;

-- The copy of the relay's state; the record in the queue is the truth.
create table millrace.relay_state (
  source text primary key,
  state text not null,
  updated_at timestamptz not null default now()
);

-- check_event stays with public: every insert calls it, and it reads nothing but its arguments.
revoke execute on function millrace.new_id, millrace.emit, millrace.tombstone from public;

comment on schema millrace is 'Millrace: events written here are relayed from the write-ahead log';
comment on table millrace.outbox is 'events; insert only, rows leave once relayed and past their retention';
comment on function millrace.emit is 'writes an event into the outbox, in the caller''s transaction; returns its id';
comment on function millrace.tombstone is 'writes an event without a payload: its key is gone; returns the event''s id';

insert into millrace.migrations (version, name) values (1, 'outbox');
