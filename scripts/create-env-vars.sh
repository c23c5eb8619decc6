#!/bin/sh
# Create .env and .poetry.env from their templates, and random secrets in secrets/. Git ignores all of them.
# Existing files are not changed, except that secrets of an earlier version's .env move to files.
set -eu
cd "$(dirname "$0")/.."
umask 077

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

create() { # FILE: with the text of standard input
    if [ -e "$1" ]; then
        echo "$1 exists already and was not changed"
    else
        cat >"$1"
        echo "created $1"
    fi
}

value() { # NAME: print its value in .env, without quotes
    sed -n "s/^$1=//p" .env | tail -n 1 | tr -d '\r' | sed "s/^\(['\"]\)\(.*\)\1\$/\2/"
}

create_secret() { # FILE NAME LINE: with the value that NAME has in .env, where LINE replaces it
    secret=$(random)
    changed=
    if [ ! -e "$1" ] && grep -q "^$2=" .env; then
        earlier=$(value "$2")
        changed=$(sed "s|^$2=.*|$3|" .env)
        case $earlier in
        "" | filled-in-by-make) ;; # the placeholder of earlier templates
        *)
            secret=$earlier
            echo "moved $2 from .env"
            ;;
        esac
    fi
    printf '%s\n' "$secret" | create "$1"
    [ -z "$changed" ] || printf '%s\n' "$changed" >.env
}

create .env <.env.template
create .poetry.env <.poetry.env.template

# Users of containers read these files, so everybody may; the folder keeps this machine's other users out.
mkdir -p secrets
umask 022
create_secret secrets/django_secret_key DJANGO_SECRET_KEY DJANGO_SECRET_KEY_FILE=secrets/django_secret_key
create_secret secrets/postgres_password POSTGRES_PASSWORD "# The password of PostgreSQL is in secrets/."

[ ! -e secrets/database_url ] || exit 0
password=$(cat secrets/postgres_password)
case $password in
*[!A-Za-z0-9._~+=,-]*)
    echo "secrets/postgres_password has characters that need percent-encoding in a URL: write secrets/database_url" \
        "yourself, like postgresql://totoro:PASSWORD@postgres:5432/totoro" >&2
    exit 1
    ;;
esac
echo "postgresql://totoro:$password@postgres:5432/totoro" | create secrets/database_url
