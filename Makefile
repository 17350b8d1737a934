# Every target does the set-up it needs; when nothing changed that takes no time.
#
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu    take PyTorch's CPU build (see constraints.txt)
#   make life SIZE=tiny         the same life in minutes
#   make demo PYTHON=python3.12                                   another Python, 3.11 or newer

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup life demo test test-slow check bench clean
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
TORCH_INDEX ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
INSTALL := $(PIP) install --constraint constraints.txt

help:
	@echo "make life    raw text to a chat: a model from first weights to its last exam (half an hour; SIZE=tiny: minutes)"
	@echo "make demo    adapt a small model to a corpus, examine it, merge it (the first time some minutes)"
	@echo "make test    run the tests (make test-slow: those that take long)"
	@echo "make check   format, lint, types"
	@echo "make bench   measure speed and parity against transformers and peft (long)"
	@echo "make setup   only install, into .venv"
	@echo "make clean   remove caches and .venv; the workspace stays"

setup: .venv/.ready-dev
	@echo "Ready: $(BIN)/matura"

life: .venv/.ready
	@$(BIN)/matura run recipes/life.yaml $(if $(SIZE),size=$(SIZE))
	@echo "(matura is $(BIN)/matura here)"

demo: .venv/.ready
	@$(BIN)/matura run recipes/adapt.yaml
	@echo "(matura is $(BIN)/matura here: $(BIN)/matura chat adapt/assistant)"

test: .venv/.ready-dev
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: .venv/.ready-dev
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m slow

check: .venv/.ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/.ready-dev
	@$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What `make demo` needs. The stamp is written last: an interrupted set-up is done again.
.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "matura needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo missing)." >&2; \
	  echo "Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/pip || { echo "Making .venv ..."; $(PYTHON) -m venv .venv; } || { \
	  echo "$(PYTHON) cannot make virtual environments (Debian, Ubuntu: apt install python3-venv)." >&2; exit 1; }
	@echo "Installing matura and what it needs (the first time this downloads PyTorch) ..."
	@if [ -n "$(TORCH_INDEX)" ]; then $(INSTALL) --no-deps --index-url "$(TORCH_INDEX)" torch; fi
	@$(INSTALL) setuptools
	@$(INSTALL) --no-build-isolation --editable .
	@touch $@

# What tests, checks and benchmarks need besides.
.venv/.ready-dev: .venv/.ready
	@echo "Installing what the tests need ..."
	@$(INSTALL) --no-build-isolation --editable ".[dev,reference,bench]"
	@touch $@
