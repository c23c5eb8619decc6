#!/bin/sh
# A fake `docker`: it starts no container, and runs manage.py with the variables that one would have. Its log is
# docker.log. FAKE_DOCKER_PS is what `docker compose ps` prints, and FAKE_DOCKER_RUN what `docker compose run` fails
# with instead.
echo "$@" >>docker.log
case "$1 $2" in
"compose config")
    echo '  postgres:'
    echo '        published: "8000"'
    for name in django_secret_key database_url postgres_password; do echo "    file: $PWD/secrets/$name"; done
    ;;
"compose ps") echo "${FAKE_DOCKER_PS:-}" ;;
"compose run")
    [ -z "${FAKE_DOCKER_RUN:-}" ] || { echo "$FAKE_DOCKER_RUN" >&2 && exit 1; }
    while [ "$1" != manage.py ]; do shift; done
    set -a
    . ./.env
    # As docker-compose.yml has it.
    DJANGO_SECRET_KEY_FILE=secrets/django_secret_key DATABASE_URL_FILE=secrets/database_url
    PYTHONPATH=$FAKE_DOCKER_PYTHONPATH
    exec "$FAKE_DOCKER_PYTHON" "$@"
    ;;
esac
