#!/bin/sh
# As the public image's: KAFKA_PROCESS_ROLES=… is process.roles=…, and so on.
set -eu
env | sed -n 's/^KAFKA_\([A-Z_]*\)=/\1=/p' | while IFS='=' read -r name value; do
  case $name in HEAP_OPTS) continue ;; esac
  printf '%s=%s\n' "$(printf %s "$name" | tr 'A-Z_' 'a-z.')" "$value"
done >/tmp/env.properties
/opt/kafka/bin/kafka-storage.sh format --ignore-formatted --cluster-id bWlsbHJhY2UtdGVzdHMtMQ --config /tmp/env.properties
exec /opt/kafka/bin/kafka-server-start.sh /tmp/env.properties
