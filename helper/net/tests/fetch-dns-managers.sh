#!/bin/sh
# Unpacks systemd-resolved and NetworkManager, with what they need, into a folder: the DNS tests run the real ones, in
# namespaces of their own. Nothing is installed, since installing them changes the machine's own name resolution.
# Usage: fetch-dns-managers.sh [FOLDER]     (default: target/test-tools of this workspace)
set -eu
workspace=$(cd "$(dirname "$0")/../../.." && pwd)
folder=${1:-$workspace/target/test-tools}
[ -e "$folder/complete" ] && exit 0

rm -rf "$folder"
mkdir -p "$folder/archives/partial" "$folder/root"
apt-get -q -y -o Dir::Cache::archives="$folder/archives" -o APT::Sandbox::User=root \
    --no-install-recommends --reinstall --download-only install systemd-resolved network-manager
for package in "$folder"/archives/*.deb; do
    dpkg -x "$package" "$folder/root"
done
rm -r "$folder/archives"
touch "$folder/complete"
