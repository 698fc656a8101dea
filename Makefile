# The environment is .venv in this clone; every target makes what it needs and may be interrupted.
# A newcomer needs Python 3.11 or newer (with its venv module) and make: `make run`.

PYTHON ?= python3
# Test processes; the tests are meant for a machine with two cores.
WORKERS ?= 2

BIN := .venv/bin
ENVIRONMENT := $(PYTHON) scripts/environment.py
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadscope

.DEFAULT_GOAL := help
.PHONY: help run test test-all bench docs check format lock recordings python runtime dev

help:
	@echo 'make run         install moim here, fetch a tiny model and ask it a question'
	@echo 'make test        the tests, bar the slow ones, and the static checks'
	@echo 'make test-all    every test'
	@echo 'make check       format, lint, types, import contracts; longest function, largest module'
	@echo 'make format      let ruff rewrite the code'
	@echo 'make docs        build the documentation into docs/_build/html'
	@echo 'make bench       the benchmarks, beside other clients'
	@echo 'make recordings DIR=folder   decode every recorded exchange of a folder'
	@echo 'make lock        write the constraint files again'

run: runtime
	@$(BIN)/moim pull smollm2
	@$(BIN)/python examples/ask_document.py

test: dev test-model
	$(PYTEST) -m "not slow"

test-all: dev test-model
	$(PYTEST)

# Set-up may use the network, tests may not. Without a network the tests that need the model skip.
test-model: dev
	@MOIM_MODELS=.venv/models $(BIN)/moim pull smollm2 \
	  || echo 'Without the model, the tests that need it are skipped.' >&2

check: dev
	@$(BIN)/python scripts/check.py

format: dev
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

docs: dev
	@$(BIN)/python -m sphinx -W --keep-going --quiet -b html docs docs/_build/html
	@echo 'The site is in docs/_build/html/index.html'

bench: python
	@$(ENVIRONMENT) bench
	@.venv-bench/bin/python -m benchmarks

recordings: runtime
	@test -n "$(DIR)" || { echo 'Name the folder: make recordings DIR=../shared/recordings'; exit 2; }
	@$(BIN)/python -m moim.testing.recordings "$(DIR)"

lock: dev
	@$(BIN)/python scripts/lock.py

runtime: python
	@$(ENVIRONMENT) runtime

dev: python
	@$(ENVIRONMENT) dev

# Written for any Python, so that an old one is told what is wrong and not shown a syntax error.
python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'moim needs Python 3.11 or newer, and "$(PYTHON)" is not one:' >&2; \
	  $(PYTHON) --version >&2 || true; \
	  echo 'Install one, or name one that you have: make $(MAKECMDGOALS) PYTHON=python3.12' >&2; \
	  exit 1; }
