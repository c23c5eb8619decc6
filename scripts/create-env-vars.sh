#!/bin/sh
# Create .env and .poetry.env, which git ignores, from their templates, with random secrets. An existing
# file is not changed.
set -eu
cd "$(dirname "$0")/.."

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

create() { # TEMPLATE FILE
    if [ -e "$2" ]; then
        echo "$2 exists already and was not changed"
        return
    fi
    umask 077
    sed -e "s/^DJANGO_SECRET_KEY=.*/DJANGO_SECRET_KEY=$(random)/" \
        -e "s/^POSTGRES_PASSWORD=.*/POSTGRES_PASSWORD=$(random)/" "$1" >"$2"
    echo "created $2"
}

create .env.template .env
create .poetry.env.template .poetry.env
