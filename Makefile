# The short front. Everything happens in .venv, which the first target makes; PYTHON chooses the interpreter.
PYTHON ?= python3
WORKERS ?= 3
PYTHONS ?= 3.11 3.12 3.13 3.14
BIN := .venv/bin

.PHONY: serve test check format bench soak docs dist clean help

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1|/p' Makefile | column -t -s '|'

serve: .venv/installed ## start a server on 127.0.0.1:2222; options in ARGS="--listen ..."
	$(BIN)/dunnart serve $(ARGS)

test: .venv/installed-dev ## all tests; ARGS="-k name" for some
	@$(BIN)/python -m compileall -q src # once, and not in each of the processes that the tests start
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

check: .venv/installed-dev ## lint, format, types, import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev ## put the code into its form
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

bench: .venv/installed-dev ## side by side with real servers; ARGS="--quick --only bulk"
	$(BIN)/python -m benchmarks $(ARGS)

soak: .venv/installed-dev ## a day of a small server in ten minutes, as root; ARGS="--hours 6 --minutes 2"
	$(BIN)/python -m benchmarks.soak $(ARGS)

docs: .venv/installed-dev ## the documentation, in build/docs; a warning is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -n -q -d build/docs/doctrees docs build/docs/html
	$(BIN)/python -m sphinx --fail-on-warning -n -q -b man -d build/docs/doctrees docs build/docs/man
	@echo build/docs/html/index.html

dist: .venv/installed-dev ## sdist, wheel, one executable file and a Debian package in dist/
	$(BIN)/python -m build
	$(BIN)/python -m shipping.one_file dist/dunnart.pyz $(PYTHONS:%=--python %)
	if command -v dpkg-deb >/dev/null; then $(BIN)/python -m shipping.debian dist $(PYTHONS:%=--python %); fi

clean: ## remove what make made
	rm -rf .venv dist build .coverage* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# Stamps: repeats are quick, and a changed pyproject.toml installs anew.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "dunnart needs Python 3.11 or newer; choose one with make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/installed-dev: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ .venv/installed
