#!/bin/sh
# Save Compose's database to a file, or restore it from one, while Totoro serves.
#
# usage: backup.sh [FILE]            default: backups/totoro-<time in UTC>.dump
#        backup.sh restore FILE
set -eu
cd "$(dirname "$0")/.."
COMPOSE=${COMPOSE:-docker compose}

stop() {
    echo "totoro: $1" >&2
    exit 1
}

in_postgres() { $COMPOSE exec --no-TTY postgres "$@"; }

# A dump that was cut short cannot be listed.
is_dump() { in_postgres pg_restore --list 2>/dev/null <"$1" | grep -q services_storedsnapshot; }

[ -n "$($COMPOSE ps --quiet postgres)" ] || stop "Compose runs no postgres here: start it, or use your provider's backups"

if [ "${1:-}" = restore ]; then
    [ -n "${2:-}" ] || stop "which file? make docker-restore FILE=backups/….dump"
    [ -f "$2" ] || stop "$2 does not exist"
    is_dump "$2" || stop "$2 is no complete dump of Totoro's database; nothing was changed"
    # All or nothing.
    in_postgres pg_restore --username totoro --dbname totoro --clean --if-exists --single-transaction <"$2" ||
        stop "$2 could not be restored; nothing was changed"
    # The dump may be of an earlier version.
    $COMPOSE run --rm --no-deps migrate
    echo "restored $2"
    exit
fi

umask 077
file=${1:-backups/totoro-$(date -u +%Y%m%dT%H%M%SZ).dump}
case $file in */) stop "$file is a folder" ;; esac
mkdir -p "$(dirname "$file")"
trap 'rm -f "$file.part"' EXIT
in_postgres pg_dump --username totoro --format custom totoro >"$file.part" || stop "the database could not be read"
is_dump "$file.part" || stop "the database has no tables of Totoro, or could not be read completely"
mv "$file.part" "$file"
echo "saved $file ($(wc -c <"$file") bytes)"
