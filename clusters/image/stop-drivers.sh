#!/usr/bin/env bash
# Ends the drivers of this node cleanly, before the node goes: every `dft-search search`, `resume` and `train` that works
# in the same DFT_SEARCH_HOME gets SIGTERM, writes its checkpoints, and ends with exit code 3; the same command (with
# `--resume` for a search) goes on from there. Waits up to STOP_SECONDS (120) for them.
set -euo pipefail

deadline=$((SECONDS + ${STOP_SECONDS:-120}))
home=${DFT_SEARCH_HOME:-}

# Whether a process is such a driver: an interpreter that runs one of the three verbs, in our home.
is_driver() {
  local words=() i
  mapfile -d '' -t words 2>/dev/null <"/proc/$1/cmdline" || return 1
  [[ "${words[0]:-}" == *python* ]] || return 1
  for ((i = 1; i + 1 < ${#words[@]}; i++)); do
    if [[ "${words[i]}" =~ (^|/)dft[-_]search$ && "${words[i + 1]}" =~ ^(search|resume|train)$ ]]; then
      home_of "$1"
      return
    fi
  done
  return 1
}

# Whether a process works in our home.
home_of() {
  local line
  while IFS= read -r -d '' line; do
    [ "$line" = "DFT_SEARCH_HOME=$home" ] && return 0
  done 2>/dev/null <"/proc/$1/environ"
  return 1
}

if [ -z "$home" ]; then
  echo "stop-drivers: DFT_SEARCH_HOME is not set, so whose drivers to stop is not known" >&2
  exit 2
fi
drivers=()
for folder in /proc/[0-9]*; do
  if is_driver "${folder#/proc/}"; then
    drivers+=("${folder#/proc/}")
  fi
done
for driver in "${drivers[@]}"; do
  echo "stop-drivers: process $driver is asked to stop"
  kill -TERM "$driver" 2>/dev/null || true
done
for driver in "${drivers[@]}"; do
  while is_driver "$driver"; do
    if [ "$SECONDS" -ge "$deadline" ]; then
      echo "stop-drivers: process $driver has not ended in time" >&2
      exit 1
    fi
    sleep 0.5
  done
done
