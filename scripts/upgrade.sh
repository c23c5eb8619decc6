#!/bin/sh
# Replace the web containers, one after the other, without losing a request: start a new one, wait until it is
# healthy, let an old one finish. If the settings, the migration or the first new one fails, nothing changes.
#
# usage: upgrade.sh             with the image of this tree, which is built and checked first
#        upgrade.sh rollback    with the image that ran before the last upgrade
#
# totoro:latest is what docker-compose.yml runs, totoro:previous what ran before.
set -eu
cd "$(dirname "$0")/.."
COMPOSE=${COMPOSE:-docker compose}
IMAGE=${TOTORO_IMAGE:-totoro}
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

old=$(web_containers)
[ -n "$old" ] || stop "nothing runs that could be replaced: use 'make docker-detached-totoro-server'"
number=$(echo "$old" | wc -l)
running=$(docker inspect --format '{{.Image}}' "$(echo "$old" | head -n 1)")

go_back() { # REASON
    for container in $(web_containers); do
        [ "$(docker inspect --format '{{.State.Health.Status}}' "$container")" = healthy ] ||
            docker rm --force "$container" >/dev/null
    done
    # Unless the new image has served already.
    remaining=$(docker ps --quiet --no-trunc)
    case $remaining in *"$(echo "$old" | head -n 1)"*) docker tag "$running" "$IMAGE:latest" ;; esac
    stop "$1; the old containers keep serving"
}

# In Compose's own container of migrate: the next plain `up` would replace one of another image, and after it web.
migrate() {
    $COMPOSE rm --force migrate >/dev/null 2>&1
    $COMPOSE up --detach --no-recreate migrate &&
        [ "$(docker wait "$($COMPOSE ps --all --quiet migrate)")" = 0 ] ||
        { $COMPOSE logs --tail 1 migrate >&2 && go_back "the database could not be migrated"; }
}

if [ "${1:-}" = rollback ]; then
    docker image inspect "$IMAGE:previous" >/dev/null 2>&1 || stop "there is no $IMAGE:previous: nothing was upgraded yet"
    docker tag "$IMAGE:previous" "$IMAGE:latest"
else
    sh scripts/check-env-vars.sh || go_back "the settings are not valid"
fi
migrate
[ "$(docker inspect --format '{{.Id}}' "$IMAGE:latest")" != "$running" ] || echo "The image is the one that runs already."

# One at a time, so that most addresses respond while nginx looks for one that does. Not --no-deps, with which the next
# plain `up` would find the containers changed and replace them.
for container in $old; do
    $COMPOSE up --detach --no-recreate --scale web=$((number + 1)) --wait --wait-timeout $HEALTHY_SECONDS web ||
        go_back "a new container was not healthy within $HEALTHY_SECONDS seconds"
    sleep $DNS_SECONDS
    docker stop --time $STOP_SECONDS "$container" >/dev/null
    docker rm "$container" >/dev/null
    sleep $DNS_SECONDS
done
docker tag "$running" "$IMAGE:previous"
echo "web runs version $(docker inspect --format '{{index .Config.Labels "org.opencontainers.image.version"}}' "$IMAGE:latest")."
