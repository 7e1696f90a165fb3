#!/usr/bin/env bash
# Everything that must hold before a change is merged. `make test` calls this after the set-up.
#
# The order is by cost: the front end and formatting in seconds, then one build whose programs every test uses. All tests
# run, also after a failure; the last line adds them up in cargo's words.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/target/tools/node_modules/.bin:$HOME/.cargo/bin:$PATH"
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never} RUST_BACKTRACE=${RUST_BACKTRACE:-0}

started=$(date +%s)
step() { printf '\n== %s (at %s s)\n' "$*" "$(($(date +%s) - started))"; }

step "front end: build, check, test"
(cd ui && npm run --silent build && npm run --silent check && npm run --silent test)

step "format"
cargo fmt --all --check

step "lints"
cargo clippy --workspace --all-targets --locked -- -D warnings

step "build"
cargo build --workspace --all-targets --locked

# Namespaces need root. A test that needs none runs under sudo as well, so that there is one build and one run.
if [ "$(id -u)" != 0 ]; then
    export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="sudo -E env PATH=$PATH"
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER
fi

step "tests"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$log" || status=$?

# One line for all test programs: passed, failed, ignored, measured, filtered out.
summary=$(awk '/^test result: / {
    for (i = 1; i < NF; i++) {
        if ($(i + 1) == "passed;") p += $i; else if ($(i + 1) == "failed;") f += $i
        else if ($(i + 1) == "ignored;") g += $i; else if ($(i + 1) == "measured;") m += $i
    }
} END { printf "%d passed; %d failed; %d ignored; %d measured; 0 filtered out", p, f, g, m }' "$log")
verdict=ok
if [ $status != 0 ]; then
    verdict=FAILED
    # What failed and why once more, for whoever sees the end only: of each failed test what its program said last.
    step "what failed"
    awk -v last=25 '
        /^test .* \.\.\. FAILED$/ { sub(/^test /, ""); sub(/ \.\.\. FAILED$/, ""); failed[$0] = 1 }
        /^failures:$/ { name = "" }
        name { said[name]++; text[name, said[name] % last] = substr($0, 1, 400) }
        /^---- .* stdout ----$/ { name = $0; sub(/^---- /, "", name); sub(/ stdout ----$/, "", name) }
        END {
            for (name in failed) {
                print "\n" name
                for (i = said[name] > last ? said[name] - last + 1 : 1; i <= said[name]; i++)
                    print "    " text[name, i % last]
            }
        }' "$log"
    grep -A 3 -E '^error(:|\[)' "$log" || true
fi
printf '\ntest result: %s. %s; finished in %d.00s\n' "$verdict" "$summary" "$(($(date +%s) - started))"
exit $status
