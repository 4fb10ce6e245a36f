# Every target makes its own .venv when it is missing or older than pyproject.toml: with uv when that runs, else with venv and pip.
# Nothing needs to be activated. To choose: make PYTHON=python3.12 test, make UV= test (no uv), make ARGS="..." bench.
SHELL := /bin/bash
VENV ?= .venv
UV ?= uv
ARGS ?=
BIN := $(VENV)/bin

# The newest one that really runs: a version manager leaves commands on the PATH that only say what to install.
find_python = $(shell for p in $(1); do "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo "$$p" && break; done)
PYTHON ?= $(call find_python,python3.13 python3.12 python3.11 python3)
VERSIONS := 3.11 3.12 3.13
PYENV_ROOT ?= $(HOME)/.pyenv

.DEFAULT_GOAL := help
.PHONY: help demo test test-all coverage servers lint format bench bench-peers soak docs examples changelog clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/.stamp: pyproject.toml scripts/venv.sh
	scripts/venv.sh $(VENV) "$(PYTHON)" "$(UV)"
	@touch $@

demo: $(VENV)/.stamp ## audit the licences of an environment with two workers, kill one, lose nothing
	$(BIN)/python -m examples.licence_auditor.demo $(ARGS)

test: lint servers ## lint, then every test, against real servers that the tests start
	$(BIN)/python -m pytest -n auto $(ARGS)

test-all: lint servers $(VERSIONS:%=test-%) ## the tests under each of Python 3.11, 3.12 and 3.13 that is here

test-%: pyproject.toml
	@python="$(call find_python,python$* $(wildcard $(PYENV_ROOT)/versions/$*.*/bin/python$*))"; \
	if [ -z "$$python" ]; then echo "python$* does not run here: left out"; exit 0; fi; \
	[ .venv-$*/.stamp -nt pyproject.toml ] || { scripts/venv.sh .venv-$* "$$python" "$(UV)" && touch .venv-$*/.stamp; } || exit 1; \
	.venv-$*/bin/python -m pytest -n auto $(ARGS)

coverage: $(VENV)/.stamp servers ## the tests, and the lines that none of them ran
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --show-missing --skip-covered

servers: ## install the servers that the tests start, where we may; else say what is missing
	scripts/servers.sh

lint: $(VENV)/.stamp ## style, import rules, shape and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python scripts/shape.py
	@$(MAKE) --no-print-directory -O -j2 types-mypy types-pyright

# Side by side: each keeps one core busy for most of a minute.
types-%: $(VENV)/.stamp
	$(BIN)/$*

format: $(VENV)/.stamp ## write the code in the house's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.stamp servers ## our figures beside their raw limits, in one run
	$(BIN)/python -m benchmarks $(ARGS)

bench-peers: $(VENV)/.stamp servers ## the same work done by other libraries, each in an environment of its own
	$(BIN)/python -m benchmarks.peers $(ARGS)

soak: $(VENV)/.stamp servers ## ten minutes of random kill -9 and SIGSTOP over several workers
	$(BIN)/python -m tests.system.soak $(ARGS)

docs: $(VENV)/.stamp ## write docs/reference from the docstrings, then run every block of code in the pages
	$(BIN)/python scripts/reference.py
	$(BIN)/python -m pytest -n auto tests/docs $(ARGS)

examples: $(VENV)/.stamp ## run every example, twice: make examples ARGS=trip_planner
	$(BIN)/python -m examples $(ARGS)

changelog: $(VENV)/.stamp ## move changes/ into CHANGELOG.md: make changelog ARGS=0.2.0
	$(BIN)/python scripts/changelog.py $(ARGS)

clean: ## remove environments, caches and builds
	rm -rf .venv .venv-* .servers dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
