#!/usr/bin/env bash
# Starts a Ray head on loopback, with the job server at http://127.0.0.1:8265. Options for `ray start` may follow.
set -euo pipefail
export RAY_USAGE_STATS_ENABLED=0
exec ray start --head --node-ip-address 127.0.0.1 --dashboard-host 127.0.0.1 --disable-usage-stats "$@"
