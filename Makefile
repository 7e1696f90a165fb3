# Each target sets up what it needs; as another user than root it uses sudo for packages and namespaces.

export PATH := $(CURDIR)/target/tools/node_modules/.bin:$(HOME)/.cargo/bin:$(PATH)
export CARGO_INCREMENTAL ?= 0

.PHONY: help demo demo-headless test build bench fuzz mutants deny setup clean

help:
	@echo 'make demo            a gateway, a network and the window; click Connect'
	@echo 'make demo-headless   the same with the command line, ends by itself (also: make demo HEADLESS=1)'
	@echo 'make build           release programs in target/release'
	@echo 'make test            everything that must hold before a change is merged'
	@echo 'make bench           connect time, throughput and memory beside strongSwan'
	@echo 'make fuzz            fuzz targets, for FUZZ_SECONDS each'
	@echo 'make mutants         disables lines one by one; the tests of docs/conformance.md must notice'
	@echo 'make deny            cargo-deny on licences, bans, sources and advisories'
	@echo 'make setup           install what all of these need'

# HEADLESS=1 and ARGS=--headless mean the same.
demo:
	scripts/demo.sh $(if $(HEADLESS),--headless) $(ARGS)

demo-headless:
	scripts/demo.sh --headless

setup:
	scripts/setup.sh test

build:
	scripts/setup.sh build
	cd ui && npm run --silent build
	cargo build --workspace --bins --release --locked

test:
	scripts/setup.sh test
	scripts/test.sh

bench:
	scripts/setup.sh test
	scripts/bench.sh $(ARGS)

fuzz:
	scripts/setup.sh headless
	scripts/fuzz.sh

# WORD=7383 keeps those whose requirement or file contains it.
mutants:
	scripts/setup.sh headless
	scripts/mutants.sh $(WORD)

# Compiles cargo-deny (several minutes) into target/tools, once.
deny:
	scripts/setup.sh headless
	test -x target/tools/bin/cargo-deny || cargo install --locked --root target/tools cargo-deny
	target/tools/bin/cargo-deny check

clean:
	cargo clean
	rm -rf ui/dist ui/node_modules
