#!/bin/sh
# Warn about names in .env that .env.template does not have: nothing reads them, so they are misspelt or
# out of date.
set -eu
cd "$(dirname "$0")/.."

names() { sed -n 's/^[[:space:]]*\(export[[:space:]]\{1,\}\)\{0,1\}\([A-Za-z_][A-Za-z0-9_]*\)=.*/\2/p' "$1"; }

known=" $(names .env.template | tr '\n' ' ')"
for name in $(names .env); do
    case "$known" in
    *" $name "*) ;;
    *) echo "warning: .env sets $name, which nothing reads; .env.template lists the names" >&2 ;;
    esac
done
