# make demo   a first run, from nothing        make test   the quick suite
# make check  everything, also the slow proofs  make bench  the figures

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help demo test check lint fix

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

# Two stamps, so that the second time costs nothing: what a user needs, and what a developer needs.
$(VENV)/user.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) and v < (3, 14) or sys.exit("lrkit needs Python 3.11, 3.12 or 3.13; this is %d.%d: make PYTHON=python3.12 ..." % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[optim,plot]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/user.stamp
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/user.stamp ## train a network on handwritten digits, and say what was learnt
	$(BIN)/lrkit show +experiment=demo
	$(BIN)/lrkit train +experiment=demo

test: $(VENV)/dev.stamp ## the quick suite
	$(BIN)/python -m pytest -q

check: $(VENV)/dev.stamp lint ## lint, types, and all tests with the slow proofs
	$(BIN)/python -m pytest -q -m 'slow or not slow'

lint: $(VENV)/dev.stamp ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: $(VENV)/dev.stamp ## what ruff can mend by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
