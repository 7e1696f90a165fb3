#!/usr/bin/env bash
# Searches with libFuzzer, each target for FUZZ_SECONDS (default 60). New inputs that reach new code go to
# target/fuzz-corpus, inputs that break something to target/fuzz-artifacts.
#
# The flags are those of coverage-guided fuzzing that stable Rust knows; a folder of its own keeps them from other builds.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH"

coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
coverage+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
coverage+=" -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks"
host=$(rustc -vV | sed -n 's/^host: //p')
folder=${CARGO_TARGET_DIR:-target}/fuzz
# With --target the flags reach our crates and not build scripts and macros, which have no libFuzzer to talk to.
RUSTFLAGS=$coverage cargo build --locked --release --target "$host" --target-dir "$folder" -p ropewalk-fuzz --bins

status=0
while read -r name corpus; do
    mkdir -p "target/fuzz-corpus/$name" target/fuzz-artifacts
    printf '\n== %s\n' "$name"
    "$folder/$host/release/$name" -max_total_time="${FUZZ_SECONDS:-60}" -print_final_stats=1 \
        -artifact_prefix="target/fuzz-artifacts/$name-" "target/fuzz-corpus/$name" "$corpus" || status=1
done <<'TARGETS'
fuzz-datagram helper/ike/tests/corpus/datagram
fuzz-decrypted-payloads helper/ike/tests/corpus/decrypted_payloads
fuzz-certificate tests/fuzz/corpus/certificate
fuzz-profile tests/fuzz/corpus/profile
fuzz-ipc-frame tests/fuzz/corpus/ipc_frame
fuzz-exchanges tests/fuzz/corpus/exchanges
TARGETS
exit $status
