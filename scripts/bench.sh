#!/usr/bin/env bash
# Ropewalk beside strongSwan in one run, with release programs. `make bench` calls this after the set-up.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/target/tools/node_modules/.bin:$HOME/.cargo/bin:$PATH"

(cd ui && npm run --silent build)
cargo build --workspace --bins --release --locked
as_root=()
if [ "$(id -u)" != 0 ]; then as_root=(sudo -E env "PATH=$PATH"); fi
exec "${as_root[@]}" "${CARGO_TARGET_DIR:-target}/release/ropewalk-bench" "$@"
