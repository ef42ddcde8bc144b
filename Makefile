# Every target sets up what it needs; a second call finds it done and asks nothing of the network.
PYTHON ?= python3
BIN := .venv/bin
# The same for every cargo call, or the same crates would be built again.
export PATH := $(HOME)/.cargo/bin:$(PATH)
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
CARGO := cargo
PYTEST_ARGS ?=
# Python's checks need one processor, for as long as cargo needs the others.
BESIDE := $(MAKE) --no-print-directory --jobs 2
# Tests that start no sandbox may run beside each other. The others go one after another, and wait
# more than they compute: what they leave of the processors is enough for these.
APART := tests/unit tests/property tests/statistics tests/e2e
BENCH_ARGS ?=
EXPERIMENT ?= quick

.DEFAULT_GOAL := help
.PHONY: help setup build trial test lint lint-python lint-rust test-rust test-apart test-sandboxes soak bench fmt lock clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: ## make a bare clone ready: system packages (as root on Debian), Python, runsc, build
	@$(PYTHON) scripts/setup.py --for test

build: ## build the extension, the guest and the launcher (release)
	@$(PYTHON) scripts/setup.py --for trial python build

trial: ## compare every runtime that works here: a table, and a page (EXPERIMENT=quick)
	@$(PYTHON) scripts/setup.py --for trial
	@$(BIN)/seatrial run $(EXPERIMENT)

test: setup ## run every check and every test (PYTEST_ARGS=...)
	@$(BESIDE) --output-sync=line lint-python test-rust
ifeq ($(PYTEST_ARGS),)
	@$(BESIDE) test-apart test-sandboxes
else
	$(BIN)/pytest $(PYTEST_ARGS)
endif

test-apart: # says what it found at its end, not in the middle of the others' lines
	@said=$$(SEATRIAL_TESTS_BESIDE=1 nice -n 19 $(BIN)/pytest --numprocesses auto --dist worksteal $(APART) 2>&1) \
	  && code=0 || code=$$?; printf '%s\n' "$$said"; exit $$code

test-sandboxes:
	$(BIN)/pytest $(addprefix --ignore ,$(APART))

lint: build ## check style, types, layers and the extension's stub
	@$(BESIDE) --output-sync=line lint-python lint-rust

lint-python:
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest seatrial._core --mypy-config-file pyproject.toml
	$(BIN)/lint-imports --no-logo

lint-rust:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --quiet --workspace --all-targets -- -D warnings

test-rust: lint-rust
	$(CARGO) test --locked --quiet --workspace --exclude seatrial-python

soak: build ## start and stop 1,000 sandboxes of every driver that works here (1.5 hours), and try every fault
	SEATRIAL_CYCLES=1000 $(BIN)/pytest tests/integration/conformance/test_cycles.py $(PYTEST_ARGS)
	SEATRIAL_FAULTS=all $(BIN)/pytest tests/fault $(PYTEST_ARGS)

bench: ## measure Seatrial itself against minimal programs and its peers (an hour, quiet machine)
	@$(PYTHON) scripts/setup.py --for bench
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

fmt: ## format the sources
	$(BIN)/ruff check --fix --quiet
	$(BIN)/ruff format
	$(CARGO) fmt

lock: ## write the lock files of Python packages anew
	@$(BIN)/python scripts/lock.py

clean: ## remove what was built here; keeps runs/ and the tools shared between clones
	rm -rf .venv build target python/seatrial/_bin python/seatrial/_core.abi3.so
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
