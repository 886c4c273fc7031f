# Read by server.sh and backup.sh: the values of mlflow.env, the password, and a look whether the database lets us in.
# shellcheck shell=bash

values="$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/mlflow.env"
if [ -e "$values" ]; then # on Kubernetes the pod's environment has them
  set -a
  # shellcheck source=/dev/null
  . "$values"
  set +a
fi

die() {
  echo "$(basename "$0"): $1" >&2
  exit "${2:-1}"
}

case "$DATABASE" in
  *:*:*@* | *[?\&]password=*) die "the password belongs into a file (PASSWORD_FILE), not into DATABASE" 2 ;;
  postgresql://*/*) ;;
  *) die "DATABASE is postgresql://USER@HOST:PORT/NAME, with a host and a name" 2 ;;
esac

# From a file into the environment, where PostgreSQL's clients look for it: no command line or log ever holds it.
# Without the file they take PGPASSFILE or ~/.pgpass.
PASSWORD_FILE=${PASSWORD_FILE:-/etc/mlflow/password}
if [ -r "$PASSWORD_FILE" ]; then
  PGPASSWORD=$(<"$PASSWORD_FILE")
  export PGPASSWORD
fi
export PGCONNECT_TIMEOUT=${PGCONNECT_TIMEOUT:-10}

# One line at once, where MLflow would try for minutes and print a stack of calls.
check_database() {
  python - <<'EOF' || exit 1
import os
import sys

import psycopg

try:
    psycopg.connect(os.environ["DATABASE"]).close()
except psycopg.Error as error:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    sys.exit(f"cannot open {os.environ['DATABASE']}: {lines[-1]}")
EOF
}
