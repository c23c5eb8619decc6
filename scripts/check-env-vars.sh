#!/bin/sh
# Check .env, the secrets, the published port and, in a container of its own, all settings and the database,
# before anything that runs is touched. A mistake is one line that says what to do.
set -eu
cd "$(dirname "$0")/.."
COMPOSE=${COMPOSE:-docker compose}
create="run 'make create-env-vars-from-template'"

stop() {
    echo "totoro: $1" >&2
    exit 1
}

last_line() { printf '%s\n' "$1" | tail -n 1 | sed 's/^totoro: //; s/^CommandError: //'; }

[ -f .env ] && [ -r .env ] || stop ".env is missing or no file that can be read: $create"
# Before .env: that of an earlier version holds secrets, which nothing reads there.
[ -d secrets ] || stop "secrets/ is missing: $create"

# Docker Compose and, with .poetry.env, a shell read .env. What they read differently is a mistake.
LC_ALL=C awk '
    function mistake(why) { print "totoro: .env, line " FNR ": " why; mistakes++ }
    function is_plain(value) {
        return value ~ "^[^ \t\"\047\\\\$`;&|<>()~]*" end || value ~ "^\047[^\047]*\047" end ||
            value ~ "^\"[^\"\\\\$`]*\"" end
    }
    BEGIN { end = "([ \t]+(#.*)?)?$" }
    FILENAME != ".env" {
        while (match($0, /[A-Z][A-Z0-9_]+/)) {
            known[substr($0, RSTART, RLENGTH)]
            $0 = substr($0, RSTART + RLENGTH)
        }
        next
    }
    /^(\357\273\277|\377\376|\376\377)/ { mistake("byte order mark: save the file as UTF-8 without one"); exit }
    /\r$/ { mistake("Windows line ends: save the file with those of Unix"); exit }
    /^[ \t]*(#.*)?$/ { next }
    {
        sub(/^[ \t]+/, "")
        is_exported = sub(/^export[ \t]+/, "")
        if (!match($0, /^[A-Za-z_][A-Za-z0-9_]*[ \t]*=/)) { mistake("not of the form NAME=value"); next }
        name = substr($0, 1, RLENGTH - 1)
        value = substr($0, RLENGTH + 1)
        has_space = sub(/[ \t]+$/, "", name) || value ~ /^[ \t]+[^ \t#]/
        if (is_exported) mistake(name ": remove the word export before it")
        else if (has_space) mistake(name ": remove the space beside =")
        else if (name in lines) mistake(name ": line " lines[name] " sets it too; remove one of them")
        else if (!(name in known) && name !~ /^(COMPOSE|DOCKER|OTEL)_/)
            mistake(name ": nothing reads it; correct or remove it (.env.template lists the names)")
        else if (!is_plain(value))
            mistake(name ": Compose and shells read this value differently; put it into single quotes")
        lines[name] = FNR
    }
    END { exit mistakes > 0 }
' .env.template docker-compose*.yml .env >&2

command -v docker >/dev/null || stop "Docker is missing: see https://docs.docker.com/engine/install/"
$COMPOSE version >/dev/null 2>&1 || stop "Docker Compose is missing: see https://docs.docker.com/compose/install/"
docker version >/dev/null 2>&1 || stop "Docker does not respond: start it, or add this user to the group docker"
config=$($COMPOSE config 2>&1) || case $config in
*"nvalid hostPort"*) stop "PORT: must be a whole number from 1 to 65535" ;;
*) stop ".env or docker-compose.yml: $(last_line "$config")" ;;
esac

in_config() { printf '%s\n' "$config" | sed -n "s/^ *$1: \"\{0,1\}\([^\"]*\)\"\{0,1\}\$/\1/p"; }

in_config file | while read -r file; do
    name=${file#"$PWD/"}
    [ ! -d "$file" ] || stop "$name is a folder, which Docker makes of a missing file: remove it, and $create"
    [ -s "$file" ] || stop "$name is missing or empty: remove it if it is there, and $create"
    ! grep -q "$(printf '\r')" "$file" || stop "$name has Windows line ends: save it with those of Unix"
done

$COMPOSE build

# The ports that this stack does not have already.
ports=$(in_config published | while read -r port; do $COMPOSE ps | grep -q ":$port->" || echo "$port"; done)
# Compose's own database may be down, and starts later. Any other must accept the password.
command="migrate --plan"
if printf '%s\n' "$config" | grep -q '^  postgres:$' && [ -z "$($COMPOSE ps --quiet postgres)" ]; then command=check; fi
publish=${ports:+$(printf ' --publish %s:1' $ports)}
# shellcheck disable=SC2086 # these are lists of words
if ! output=$($COMPOSE run --rm --no-deps -T $publish web python manage.py $command 2>&1)
then
    case $output in
    *"already in use"* | *"already allocated"*)
        stop "PORT = $ports: another program uses this port; stop it, or set another PORT in .env" ;;
    *) stop "$(last_line "$output")" ;;
    esac
fi
