#!/bin/bash
# Makes the images of the container suites from Debian's packages and the fetched Kafka, for machines that reach no image
# registry: local/postgres:15, local/kafka:4.1.1 and local/node:24, with the parts of the public images' interfaces that the
# suites use. Needs mmdebstrap, a running engine (DOCKER_HOST), npm on Node 24, and Maven. Prints the variables to export.
set -euo pipefail
cd "$(dirname "$0")"

docker info >/dev/null
have() { docker image inspect "$1" >/dev/null 2>&1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if ! have local/servers; then
  mmdebstrap --quiet --variant=minbase --include=postgresql-15,openjdk-17-jre-headless \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    bookworm "$work/root.tar" >&2
  docker import "$work/root.tar" local/servers >/dev/null
  rm "$work/root.tar"
fi

# without BuildKit, whose frontend would have to be pulled
build() { DOCKER_BUILDKIT=0 docker build --quiet --tag "$1" "$2" 2>"$work/said" >/dev/null || { cat "$work/said" >&2; return 1; }; }

have local/postgres:15 || build local/postgres:15 postgres
if ! have local/kafka:4.1.1; then
  cp -r kafka "$work/kafka"
  cp -r "$(node --eval "import('../kafka/jars.ts').then(({ kafkaJars }) => kafkaJars()).then(console.log)")" "$work/kafka/libs"
  build local/kafka:4.1.1 "$work/kafka"
fi

if ! have local/node:24; then
  cp -r node "$work/node"
  cp "$(node --print process.execPath)" "$work/node/node"
  cp -r "$(dirname "$(dirname "$(readlink -f "$(command -v npm)")")")" "$work/node/npm"
  cp /etc/ssl/certs/ca-certificates.crt "$work/node/"
  build local/node:24 "$work/node"
fi

echo "export MILLRACE_TEST_POSTGRES_IMAGE=local/postgres:15"
echo "export MILLRACE_TEST_KAFKA_IMAGE=local/kafka:4.1.1"
echo "export MILLRACE_TEST_NODE_IMAGE=local/node:24"
