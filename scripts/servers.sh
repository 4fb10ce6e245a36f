#!/usr/bin/env bash
# Installs the servers that the tests start for themselves (tests/servers), by apt where we are root; elsewhere says what to install.
# Only the programs are used: no service is configured, and none that the package starts is touched.
set -eu

declare -A package=(
  [postgres]=postgresql [pgbouncer]=pgbouncer [redis-server]=redis-server [mariadbd]=mariadb-server [mariadb-install-db]=mariadb-server [openssl]=openssl
)
PATH=$PATH:/usr/sbin:/usr/local/sbin
for folder in /usr/lib/postgresql/*/bin; do PATH=$PATH:$folder; done

missing=()
for program in "${!package[@]}"; do
  command -v "$program" >/dev/null || missing+=("${package[$program]}")
done
[ ${#missing[@]} = 0 ] && exit
read -ra missing <<<"$(printf '%s\n' "${missing[@]}" | sort -u | tr '\n' ' ')"

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  install() { apt-get install --yes --quiet --no-install-recommends "${missing[@]}"; }
  install || { apt-get update --quiet && install; } && exit
fi
echo "Not installed here: ${missing[*]}. Their tests are left out (with CI set they fail). On Debian: apt-get install ${missing[*]}" >&2
