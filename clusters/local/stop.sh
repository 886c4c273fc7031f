#!/usr/bin/env bash
# Ends the head that start.sh started (with the same LOCAL_RAY), and no other Ray of this machine.
set -euo pipefail
command -v ps >/dev/null || { echo "needs ps (Debian: apt-get install procps)" >&2; exit 1; }
folder="${LOCAL_RAY:-/tmp/dft-search-ray-$(id -u)}"
pid="$(cat "$folder/pid" 2>/dev/null || true)"
# a number may have gone to another process since
if [ -z "$pid" ] || ! ps -ww -o args= -p "$pid" 2>/dev/null | grep -qF -- "--temp-dir=$folder/ray"; then
  echo "no head of start.sh is running" >&2
  rm -rf "$folder"/{ray,pid,log}
  exit 0
fi
kill -TERM "$pid"
for _ in $(seq 60); do
  if ! kill -0 "$pid" 2>/dev/null; then
    rm -rf "$folder"/{ray,pid,log}
    echo "ended"
    exit 0
  fi
  sleep 0.5
done
echo "process $pid does not end: kill -9 $pid" >&2
exit 1
