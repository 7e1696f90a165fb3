#!/bin/sh
# Unpacks systemd-resolved, NetworkManager and openresolv, with what they need, into a folder: the DNS tests run the
# real ones, in namespaces of their own. Nothing is installed, since installing them changes the machine's own name
# resolution.
# Usage: fetch-dns-managers.sh [FOLDER]     (default: target/test-tools of this workspace)
set -eu
workspace=$(cd "$(dirname "$0")/../../.." && pwd)
folder=${1:-$workspace/target/test-tools}
[ -e "$folder/complete" ] && exit 0

fetch() { # FOLDER PACKAGE..: with those of its dependencies that this machine lacks
    to=$1
    shift
    mkdir -p "$folder/archives/partial" "$to"
    apt-get -qq -y -o Dir::Cache::archives="$folder/archives" -o APT::Sandbox::User=root \
        -o Debug::NoLocking=true --no-install-recommends --reinstall --download-only install "$@" >/dev/null
    for package in "$folder"/archives/*.deb; do
        dpkg -x "$package" "$to"
    done
    rm -r "$folder/archives"
}

rm -rf "$folder"
known() { apt-cache show "$1" >/dev/null 2>&1; }
known network-manager || apt-get -qq update
# Ubuntu 22.04 has systemd-resolved in the package systemd, which is there.
if known systemd-resolved; then resolved=systemd-resolved; else resolved=; fi
# shellcheck disable=SC2086
fetch "$folder/root" $resolved network-manager
fetch "$folder/openresolv" openresolv
# One layout, whether or not the distribution has merged /usr.
for part in lib sbin; do
    if [ -d "$folder/openresolv/$part" ]; then
        mkdir -p "$folder/openresolv/usr/$part"
        cp -a "$folder/openresolv/$part/." "$folder/openresolv/usr/$part/"
    fi
done
touch "$folder/complete"
