#!/bin/sh
# Copies .env.template and .poetry.env.template to the files that git ignores, with random secrets in
# place of the template's words. A file that is there already is left alone.
set -eu
cd "$(dirname "$0")/.."

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

create() { # TEMPLATE FILE
    if [ -e "$2" ]; then
        echo "$2 is there already: left alone"
        return
    fi
    umask 077
    sed -e "s/^DJANGO_SECRET_KEY=.*/DJANGO_SECRET_KEY=$(random)/" \
        -e "s/^POSTGRES_PASSWORD=.*/POSTGRES_PASSWORD=$(random)/" "$1" >"$2"
    echo "created $2"
}

create .env.template .env
create .poetry.env.template .poetry.env
