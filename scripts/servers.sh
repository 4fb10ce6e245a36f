#!/usr/bin/env bash
# Installs the servers that the tests start for themselves (tests/servers), by apt where we are root; elsewhere says what to install.
# Only the programs are used: no service is configured, and none that a package starts is touched.
set -eu

PATH=$PATH:/usr/sbin:/usr/local/sbin
for folder in /usr/lib/postgresql/*/bin; do PATH=$PATH:$folder; done

missing=""
need() { command -v "$1" >/dev/null || case " $missing " in *" $2 "*) ;; *) missing="$missing $2" ;; esac; }
need postgres postgresql
need pgbouncer pgbouncer
need redis-server redis-server
need mariadbd mariadb-server
need mariadb-install-db mariadb-server
need openssl openssl
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2086  # a list of words
  install() { apt-get install --yes --quiet --no-install-recommends $missing; }
  { install || { apt-get update --quiet && install; }; } && exit
fi
echo "Not installed here:$missing. Their tests are left out (with CI set they fail). On Debian: apt-get install$missing" >&2
