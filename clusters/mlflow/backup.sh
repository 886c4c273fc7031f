#!/usr/bin/env bash
# backup.sh FOLDER [DATABASE ...]: one dump of MLflow's database and of each other one on its server, e.g. optuna.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "$(readlink -f "$0")")/common.sh"
[ $# -ge 1 ] || die "usage: backup.sh FOLDER [DATABASE ...]" 2
[ -d "$1" ] || die "$1 is no folder" 2

query=${DATABASE#"${DATABASE%%\?*}"}
server=${DATABASE%"$query"}
folder=$1
time=$(date -u +%Y%m%dT%H%M%SZ)
umask 077
check_database
for name in "${server##*/}" "${@:2}"; do
  file="$folder/$name-$time.dump"
  pg_dump --format=custom --no-owner --dbname="${server%/*}/$name$query" --file="$file.part"
  mv "$file.part" "$file"
  echo "$file"
done
