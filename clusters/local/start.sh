#!/usr/bin/env bash
# Starts a Ray head on loopback, with the job server at http://127.0.0.1:8265. Options for `ray start` may follow.
# What belongs to it is in one folder (LOCAL_RAY, default /tmp/dft-search-ray-UID), so that stop.sh ends this head alone.
set -euo pipefail
command -v ps >/dev/null || { echo "needs ps (Debian: apt-get install procps)" >&2; exit 1; }
folder="${LOCAL_RAY:-/tmp/dft-search-ray-$(id -u)}" # short: Ray keeps sockets in it
here="$(cd "$(dirname "$0")" && pwd)"
if [ -s "$folder/pid" ] && ps -ww -o args= -p "$(cat "$folder/pid")" 2>/dev/null | grep -qF -- "--temp-dir=$folder/ray"; then
  echo "a head is running, process $(cat "$folder/pid"): end it with $here/stop.sh" >&2
  exit 1
fi
mkdir -p "$folder"
chmod 700 "$folder"
rm -f "$folder/log" # of a head that was killed: it would say that this one is up
export RAY_USAGE_STATS_ENABLED=0
unset RAY_ADDRESS
# with --block, one process keeps the daemons of this head and takes them along; setsid keeps it from this terminal
setsid ray start --head --block --node-ip-address=127.0.0.1 --dashboard-host=127.0.0.1 --disable-usage-stats \
  --temp-dir="$folder/ray" "$@" >"$folder/log" 2>&1 </dev/null &
echo $! >"$folder/pid"
until grep -qs "Ray runtime started" "$folder/log"; do
  if ! kill -0 "$(cat "$folder/pid")" 2>/dev/null; then
    cat "$folder/log" >&2
    rm -f "$folder/pid"
    exit 1
  fi
  sleep 0.5
done
echo "Ray head, process $(cat "$folder/pid"), log in $folder/log; end it with $here/stop.sh"
