#!/usr/bin/env bash
# MLflow's server on PostgreSQL, with the schema brought up to date first. Options for `mlflow server` may follow.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "$(readlink -f "$0")")/common.sh"

address=${BIND:-127.0.0.1}
port=${PORT:-5000}
store=${DATABASE/#postgresql:/postgresql+psycopg:}

allowed='localhost,localhost:*,127.0.0.1,127.0.0.1:*'
for name in ${NAMES//,/ }; do
  allowed+=",$name,$name:*"
done

check_database
mlflow db upgrade "$store" # makes the tables where there are none; no harm where they are up to date
export MLFLOW_DISABLE_TELEMETRY=true MLFLOW_ENABLE_AI_GATEWAY=false MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
exec mlflow server --host "$address" --port "$port" --workers "${WORKERS:-2}" --allowed-hosts "$allowed" \
  --backend-store-uri "$store" --serve-artifacts --artifacts-destination "$ARTIFACTS" "$@"
