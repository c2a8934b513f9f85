#!/usr/bin/env bash
# `make system-packages`: brings what pip cannot and some tests need, Chromium, curl, PgBouncer, Prometheus and Redis, from the system's
# packages; only what is missing. Needs to be root, and apt-get; elsewhere it says what is missing, and those tests are skipped. No
# service is started: tests start servers of their own. At last it says which package each program is of.
set -euo pipefail

# The program that stands for a package; a browser of another name will do.
found() {
    case $1 in
        chromium) command -v chromium || command -v google-chrome || command -v chromium-browser ;;
        *) command -v "$1" || command -v "/usr/sbin/$1" ;;
    esac
}

install() {
    local policy=/usr/sbin/policy-rc.d apt=(apt-get -qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300)
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' > $policy
        chmod +x $policy
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    "${apt[@]}" update && "${apt[@]}" install --yes --no-install-recommends "$@" > /dev/null
}

missing=()
for package in chromium curl pgbouncer prometheus redis-server; do
    found $package > /dev/null || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
        echo "not installed, for that takes root and apt-get: ${missing[*]}"
    elif ! install "${missing[@]}"; then
        echo "could not be installed: ${missing[*]}"
        [ -z "${CI:-}" ] || exit 1
    fi
fi
for package in chromium curl pgbouncer prometheus redis-server; do
    if program=$(found $package); then
        program=$(cd -P "$(dirname "$program")" && pwd)/$(basename "$program") # /bin is /usr/bin to dpkg
        dpkg -S "$program" 2> /dev/null || echo "of no package: $program"
    else
        echo "tests that need it are skipped: $package"
    fi
done
