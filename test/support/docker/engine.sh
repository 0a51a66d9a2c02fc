#!/bin/bash
# A Docker engine of our own, beside any other: its socket, data and pid file are in $MILLRACE_DOCKER (a folder), its published
# ports on loopback. Run as root.
#     engine.sh start     prints the variables to export
#     engine.sh status    prints the process id of the running engine, or nothing
#     engine.sh stop
set -euo pipefail

home=${MILLRACE_DOCKER:-${XDG_CACHE_HOME:-$HOME/.cache}/millrace/docker}
export DOCKER_HOST=unix://$home/docker.sock

start() {
  mkdir -p "$home"
  if ! docker info >/dev/null 2>&1; then
    setsid dockerd --host="$DOCKER_HOST" --data-root="$home/data" --exec-root="$home/exec" --pidfile="$home/docker.pid" \
      --ip=127.0.0.1 >"$home/dockerd.log" 2>&1 </dev/null &
    for _ in $(seq 120); do docker info >/dev/null 2>&1 && break || sleep 0.25; done
    docker info >/dev/null 2>&1 || { tail -20 "$home/dockerd.log" >&2; exit 1; }
  fi
  # where no registry is in reach, the reaper's image cannot be had: each suite removes its own containers
  echo "export DOCKER_HOST=$DOCKER_HOST TESTCONTAINERS_RYUK_DISABLED=true TESTCONTAINERS_HOST_OVERRIDE=127.0.0.1"
}

status() {
  local pid
  pid=$(cat "$home/docker.pid" 2>/dev/null) || return 0
  ! kill -0 "$pid" 2>/dev/null || echo "$pid"
}

stop() {
  local pid
  pid=$(status)
  [ -n "$pid" ] || return 0
  kill "$pid"
  for _ in $(seq 60); do kill -0 "$pid" 2>/dev/null && sleep 0.25 || return 0; done
  echo "the engine (pid $pid) did not stop within 15 s" >&2
}

case ${1:-} in
  start) start ;;
  status) status ;;
  stop) stop ;;
  *) sed -n '2,7p' "$0" >&2; exit 2 ;;
esac
