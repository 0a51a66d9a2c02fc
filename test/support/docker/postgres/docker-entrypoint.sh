#!/bin/sh
# As the public image's: POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB, /docker-entrypoint-initdb.d/*.sql, and `postgres`
# with arguments of its own.
set -eu
user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}
as_postgres() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
socket=/tmp

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  install -d -o postgres -g postgres -m 700 "$PGDATA"
  install -m 600 -o postgres /dev/null /tmp/password
  printf '%s\n' "${POSTGRES_PASSWORD:?}" >/tmp/password
  as_postgres initdb --username="$user" --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256 --no-sync >/dev/null
  rm /tmp/password
  printf 'host %s all all scram-sha-256\n' all replication >>"$PGDATA/pg_hba.conf"
  as_postgres pg_ctl -D "$PGDATA" -w -o "-c listen_addresses='' -c unix_socket_directories=$socket" start >/dev/null
  query() { psql --host "$socket" --username "$user" --no-psqlrc --quiet --set ON_ERROR_STOP=1 "$@"; }
  [ "$database" = postgres ] || query --dbname postgres --command "create database \"$database\""
  for file in /docker-entrypoint-initdb.d/*.sql; do
    [ ! -e "$file" ] || query --dbname "$database" --file "$file"
  done
  as_postgres pg_ctl -D "$PGDATA" -w -m fast stop >/dev/null
fi

server=$1
shift
exec setpriv --reuid=postgres --regid=postgres --init-groups \
  "$server" -c listen_addresses='*' -c unix_socket_directories="$socket" "$@"
