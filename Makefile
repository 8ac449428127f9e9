# Every verb has one line of help: `make help`. Each does its own set-up; nothing is installed outside .venv and target,
# except the Debian packages of the foreign peers, where root (or sudo without a password) allows it.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
export PATH := $(HOME)/.cargo/bin:$(PATH)
# The environment of the caller must not reach into the project's own.
unexport PYTHONPATH PYTHONHOME
BIN := .venv/bin
export VIRTUAL_ENV := $(CURDIR)/.venv
CARGO_TEST := cargo test --workspace --exclude blockwire-py --locked --quiet
NATIVE_SOURCES := Cargo.toml Cargo.lock pyproject.toml $(shell find crates -name '*.rs' -o -name Cargo.toml)
PYTEST_ARGS ?=

.PHONY: help demo test soak check check-rust check-python check-unit build wheel bench fuzz peers lock format clean toolchain

help: ## this list
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

demo: build ## set everything up, then serve, discover, write, verify and measure two disks
	@$(BIN)/blockwire demo

test: build ## the whole suite, foreign peers included (installs them where it may)
	@scripts/peers --best-effort
	$(CARGO_TEST)
	$(BIN)/python -m pytest -q -m "not soak" $(PYTEST_ARGS)

soak: build ## the long tests: links cut after every byte, thousands of random schedules, the suite on [::1]
	$(BIN)/python -m pytest -q -m soak $(PYTEST_ARGS)

check: build ## before every commit: lint, types, unit and cargo tests, no peers
	@$(MAKE) --no-print-directory -j3 check-rust check-python check-unit

check-rust:
	MAKEFLAGS= cargo fmt --all --check
	MAKEFLAGS= cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
	MAKEFLAGS= $(CARGO_TEST)

check-python:
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy

check-unit:
	$(BIN)/python -m pytest -q -m "not interop and not slow and not soak" tests/architecture tests/audit tests/unit $(PYTEST_ARGS)

build: toolchain .venv/.native ## the native module, optimised, into .venv

wheel: toolchain .venv/.locked ## an abi3 wheel into dist/
	$(BIN)/maturin build --release --locked --strip --quiet --out dist

bench: build ## speed beside the raw loopback ceiling and the peers (BENCH_ARGS=--quick for short cells)
	@scripts/peers --best-effort
	cargo build --release --locked --quiet -p blockwire-bench-ceiling
	$(BIN)/python -m bench.run $(BENCH_ARGS)

fuzz: build ## every fuzz target for FUZZ_SECONDS (600), FUZZ_TARGETS (deframer target initiator pair python); needs nightly
	@scripts/fuzz

peers: ## install the foreign peers of the interop tests (Debian packages), or say what is missing
	@scripts/peers

format: .venv/.locked ## rewrite the sources in the project's format
	$(BIN)/ruff check --quiet --fix-only .
	$(BIN)/ruff format --quiet .
	cargo fmt --all

lock: ## pin the newest allowed versions in requirements-dev.txt and Cargo.lock
	@scripts/lock
	cargo update

clean: ## remove what the other verbs made
	rm -rf .venv target dist .pytest_cache .mypy_cache .ruff_cache .hypothesis bench/results src/blockwire/_native*.so

toolchain:
	@command -v cargo >/dev/null || { echo "blockwire: cargo is missing: install Rust with  curl https://sh.rustup.rs -sSf | sh  (https://rustup.rs)" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "blockwire: a C linker (cc) is missing: install one, on Debian with  apt-get install gcc libc6-dev" >&2; exit 1; }

.venv/.locked: requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "blockwire: Python 3.11 or newer is needed; name it with  make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "blockwire: Python's venv module is missing: on Debian  apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@echo "installing the locked development environment into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	@touch $@

.venv/.native: .venv/.locked $(NATIVE_SOURCES) | toolchain
	@echo "building the native module (optimised)"
	@$(BIN)/maturin develop --release --locked >.venv/native.log 2>&1 || { cat .venv/native.log >&2; exit 1; }
	@touch $@
