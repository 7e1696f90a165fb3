#!/usr/bin/env bash
# Disables the lines of tests/conformance/mutants.toml one by one and demands that the named tests fail.
#
# The committed tree is checked out into a temporary folder and changed there. It compiles once or twice a mutant; a word as
# argument keeps those whose requirement or file contains it: scripts/mutants.sh 7383
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH"
# Our own crates change and are compiled each time: unoptimised and incrementally, which is quickest for that.
export CARGO_INCREMENTAL=1 CARGO_PROFILE_DEV_OPT_LEVEL=0
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}

cargo build --quiet --locked --package ropewalk-conformance --bin mutants
scratch=$(mktemp --directory)
trap 'git worktree remove --force "$scratch/tree" 2>/dev/null || true; rm -rf "$scratch"' EXIT
git worktree add --quiet --detach "$scratch/tree" HEAD
# A copy of the program, for cargo in the scratch tree may build its own in the same place.
cp "$CARGO_TARGET_DIR/debug/mutants" "$scratch/mutants"
echo "on $(git rev-parse --short HEAD)"
nice -n 5 "$scratch/mutants" "$scratch/tree" "${1:-}"
