#!/bin/sh
# Replace the web containers, one after the other, without losing a request: start a new one, wait until it is
# healthy, let an old one finish. If the settings, the migration or the first new one fails, the old ones stay.
#
# usage: upgrade.sh             with the image of this tree, which is built and checked first
#        upgrade.sh rollback    with the image that ran before the last upgrade
#
# totoro:latest is what docker-compose.yml runs, totoro:previous what ran before.
set -eu
cd "$(dirname "$0")/.."
COMPOSE=${COMPOSE:-docker compose}
IMAGE=${TOTORO_IMAGE:-totoro}
LOCK=var/upgrade.lock
HEALTHY_SECONDS=120
# nginx asks Docker's DNS for the addresses of web once a second.
DNS_SECONDS=2
# As stop_grace_period in docker-compose.yml.
STOP_SECONDS=35

stop() {
    echo "totoro: $1" >&2
    exit 1
}

web_containers() { $COMPOSE ps --quiet web; }

image_id() { docker image inspect --format '{{.Id}}' "$1" 2>/dev/null; }

mkdir -p var
mkdir "$LOCK" 2>/dev/null || stop "another upgrade is running; if not, remove $LOCK"
trap 'rmdir "$LOCK"' EXIT

if [ "${1:-}" = rollback ]; then
    image_id "$IMAGE:previous" >/dev/null || stop "there is no $IMAGE:previous: nothing was upgraded yet"
fi

old=$(web_containers)
if [ -z "$old" ] && [ "${1:-}" = rollback ]; then
    docker tag "$IMAGE:previous" "$IMAGE:latest"
    $COMPOSE up --detach --no-build --wait
    exit
fi
[ -n "$old" ] || stop "no web runs that could be replaced: use 'make docker-detached-totoro-server'"
number=$(echo "$old" | wc -l)
running=$(docker inspect --format '{{.Image}}' "$(echo "$old" | head -n 1)")
replaced=0

give_up() { # REASON
    trap '' INT TERM
    for container in $(web_containers); do
        case $old in *"$container"*) continue ;; esac
        [ $replaced -gt 0 ] || { docker logs --tail 3 "$container" && docker rm --force "$container"; } >&2
    done
    [ $replaced -eq 0 ] || stop "$1; $replaced of $number containers are replaced: repeat the command"
    docker tag "$running" "$IMAGE:latest"
    { $COMPOSE rm --force migrate && $COMPOSE create --no-recreate migrate; } >/dev/null 2>&1 || true
    stop "$1; the old containers keep serving"
}
trap 'give_up interrupted' INT TERM

# In Compose's own container of migrate: the next plain `up` would replace one of another image, and after it web.
migrate() {
    $COMPOSE rm --force migrate >/dev/null 2>&1
    $COMPOSE up --detach --no-recreate migrate &&
        [ "$(docker wait "$($COMPOSE ps --all --quiet migrate)")" = 0 ] ||
        { $COMPOSE logs --tail 1 migrate >&2 && give_up "the database could not be migrated"; }
}

if [ "${1:-}" = rollback ]; then
    docker tag "$IMAGE:previous" "$IMAGE:latest"
else
    sh scripts/check-env-vars.sh || give_up "nothing was upgraded"
fi
migrate
# `up` would start them again, with the old image.
$COMPOSE rm --force web >/dev/null 2>&1

# One at a time, so that most addresses respond while nginx looks for one that does. Not --no-deps, with which the next
# plain `up` would find the containers changed and replace them.
for container in $old; do
    $COMPOSE up --detach --no-recreate --scale web=$((number + 1)) --wait --wait-timeout $HEALTHY_SECONDS web ||
        give_up "a new container did not become healthy"
    sleep $DNS_SECONDS
    docker stop --time $STOP_SECONDS "$container" >/dev/null
    docker rm "$container" >/dev/null
    replaced=$((replaced + 1))
    sleep $DNS_SECONDS
done
# A change of settings leaves the way back as it was.
[ "$(image_id "$IMAGE:latest")" = "$running" ] || docker tag "$running" "$IMAGE:previous"
docker image inspect --format 'web runs {{index .Config.Labels "org.opencontainers.image.version"}}, image {{.Id}}' "$IMAGE:latest"
