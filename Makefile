# make demo   a first run, from nothing        make test   the quick suite
# make check  everything, also the slow proofs

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help demo test check lint picture docs docs-links fix bench bench-find evidence evidence-quick strangers lightning

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

# A stamp each, so that the second time costs nothing: what a user needs, what a developer needs, what the site needs.
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
	@printf '%s\n' '' 'A small network has learnt to read handwritten digits: val/accuracy is its share of right answers' \
		'on digits that it was never shown, and lr in TensorBoard is the curve that was drawn above. Next:' '' \
		'  . $(VENV)/bin/activate' '  tensorboard --logdir outputs        (then open http://localhost:6006)' \
		'  lrkit train +experiment=demo schedule=one_cycle optimizer.lr=0.01'

# On all cores; the tests give each process one thread.
TOGETHER = -n auto --maxprocesses 4 --dist worksteal
test: $(VENV)/dev.stamp ## the quick suite
	$(BIN)/python -m pytest -q $(TOGETHER)

check: $(VENV)/dev.stamp lint ## lint, types, and all tests with the slow proofs
	$(BIN)/python -m pytest -q $(TOGETHER) --hypothesis-profile=default -m 'slow or not slow'

lint: $(VENV)/dev.stamp ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

SCHEDULES = constant,step,multistep,exponential,inverse_time,linear,polynomial,cosine,sqrt,rex,restarts,cyclic,$\
	one_cycle,inverse_sqrt,wsd,piecewise,plateau,range_test
picture: $(VENV)/user.stamp ## draw docs/schedules.png anew
	cp $$($(BIN)/lrkit show -m schedule=$(SCHEDULES) warmup=linear horizon.steps=1000 format=png) docs/schedules.png

$(VENV)/docs.stamp: $(VENV)/user.stamp
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

SPHINX = $(BIN)/python -m sphinx --quiet --nitpicky --fail-on-warning --keep-going
docs: $(VENV)/docs.stamp ## build the site into docs/_build; a broken link or reference fails
	$(SPHINX) docs docs/_build
	@echo 'open docs/_build/index.html'

docs-links: $(VENV)/docs.stamp ## try the links of the site that lead to other places (needs the internet)
	$(SPHINX) -b linkcheck docs docs/_build/links

bench: $(VENV)/dev.stamp ## how fast it is, against torch, Lightning and a loop by hand (under 15 minutes)
	$(BIN)/python benchmarks/bench.py --out benchmarks/bench.md

bench-find: $(VENV)/dev.stamp ## how good the rates of lrkit find and of other range tests are (an hour)
	$(BIN)/python -m pip install --quiet --no-deps -r benchmarks/peers.txt
	$(BIN)/python benchmarks/find.py

strangers: $(VENV)/dev.stamp ## modules of other packages, trained and gone on with by both Lightnings (ten minutes)
	$(BIN)/python -m pip install --quiet --no-deps -r tests/promises/third_party.txt
	$(BIN)/python -m pytest -q $(TOGETHER) -m slow tests/promises/test_third_party_modules.py

lightning: $(VENV)/dev.stamp ## the quick suite by `lightning` in place of `pytorch_lightning`, where that matters
	LRKIT_LIGHTNING=lightning $(BIN)/python -m pytest -q $(TOGETHER) $$(grep -rlE --include="test_*.py" "lrkit.lightning|plain_lightning|train" tests)

evidence: $(VENV)/dev.stamp ## try what is said about learning rates, and write docs/evidence.md (under 40 minutes)
	$(BIN)/python -m evidence

evidence-quick: $(VENV)/dev.stamp ## a few steps of each of those experiments, into outputs/ (two or three minutes)
	$(BIN)/python -m evidence --quick

fix: $(VENV)/dev.stamp ## what ruff can mend by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
