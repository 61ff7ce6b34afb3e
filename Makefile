# make demo   a first run, from nothing        make test   the quick suite
# make check  everything, also the slow tests

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help demo test check lint picture docs docs-links fix bench bench-find bench-gpu evidence evidence-quick third-party lightning pythons versions

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

# One stamp for the packages of a user, of a developer, and of the site: a second call installs nothing.
$(VENV)/user.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) and v < (3, 14) or sys.exit("lrkit needs Python 3.11, 3.12 or 3.13; this is %d.%d: make PYTHON=python3.12 ..." % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[optim,plot]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/user.stamp
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/user.stamp ## plan and train a small network on handwritten digits
	$(BIN)/lrkit show +experiment=demo
	$(BIN)/lrkit train +experiment=demo
	@printf '%s\n' '' 'A small network has learnt to read handwritten digits. val/accuracy is its share of right answers on' \
		'digits that were not in the training data. TensorBoard shows the curve above as lr. Next:' '' \
		'  . $(VENV)/bin/activate' '  tensorboard --logdir outputs        (then open http://localhost:6006)' \
		'  lrkit train +experiment=demo schedule=one_cycle optimizer.lr=0.01'

# On all cores, with one thread for each process.
TOGETHER = -n auto --maxprocesses 4 --dist worksteal
test: $(VENV)/dev.stamp ## the quick suite
	$(BIN)/python -m pytest -q $(TOGETHER)

check: $(VENV)/dev.stamp lint ## lint, types, and all tests, also the slow ones
	$(BIN)/python -m pytest -q $(TOGETHER) --hypothesis-profile=random -m 'slow or not slow'

lint: $(VENV)/dev.stamp ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

SCHEDULES = constant,step,multistep,exponential,inverse_time,inverse_sqrt,linear,polynomial,cosine,sqrt,rex,tanh,$\
	logarithmic,restarts,cyclic,one_cycle,wsd,piecewise,product,table,formula,plateau,range_test
OVERVIEW = step,exponential,linear,cosine,restarts,cyclic,one_cycle,wsd
picture: $(VENV)/user.stamp ## draw docs/schedules.png, and docs/overview.png of the README
	cp $$($(BIN)/lrkit show -m schedule=$(OVERVIEW) warmup=linear horizon.steps=1000 format=png) docs/overview.png
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

bench: $(VENV)/dev.stamp ## speed and memory, against torch, Lightning and a plain loop (under 15 minutes)
	$(BIN)/python benchmarks/bench.py --out benchmarks/bench.md

bench-find: $(VENV)/dev.stamp ## learning rates of lrkit find and of other range tests, compared (more than an hour)
	$(BIN)/python -m pip install --quiet --no-deps -r benchmarks/peers.txt
	$(BIN)/python benchmarks/find.py

bench-gpu: $(VENV)/dev.stamp ## speed, synchronisations, memory and exactness on one GPU (at most 8 minutes)
	$(BIN)/python benchmarks/gpu.py --out benchmarks/gpu.md

third-party: $(VENV)/dev.stamp ## train and resume modules of other packages, with both Lightning packages (ten minutes)
	$(BIN)/python -m pip install --quiet --no-deps -r tests/promises/third_party.txt
	$(BIN)/python -m pytest -q $(TOGETHER) -m slow tests/promises/test_third_party_modules.py

lightning: $(VENV)/dev.stamp ## the quick suite with `lightning` instead of `pytorch_lightning`
	LRKIT_LIGHTNING=lightning $(BIN)/python -m pytest -q $(TOGETHER) $$(grep -rlE --include="test_*.py" "lrkit.lightning|plain_lightning|train" tests)

# Schedules, plans and overrides need no torch, so these Pythons need little; one that is not installed is left out.
PYTHONS = python3.11 python3.12 python3.13 python3.14
WITHOUT_TORCH = tests/schedules --ignore tests/schedules/test_horizon.py tests/planning/test_plan.py \
	tests/planning/test_batch_scaling.py tests/config/test_overrides.py tests/test_yaml_comments.py \
	tests/promises/test_published.py
pythons: ## the tests that need no torch, on each Python that is installed
	@for python in $(PYTHONS); do $$python --version 2>/dev/null || continue; \
		$$python -m venv $(VENV)-$$python && \
		$(VENV)-$$python/bin/python -m pip install --quiet --constraint constraints.txt \
			hydra-core omegaconf rich numpy pyyaml pytest hypothesis && \
		$(VENV)-$$python/bin/python -m pytest -q --noconftest -p no:cacheprovider -o addopts="-m 'not slow'" \
			$(WITHOUT_TORCH) || exit 1; done

# Old packages call what newer ones have deprecated, so there such warnings are no errors. TORCH=2.13.0 sets the version
# of torch, and PYTHON=python3.13 that of Python. The second set runs also if the first one fails.
WHICH = oldest newest
versions: ## the quick suite on the oldest and on the newest versions of the dependencies that pyproject.toml accepts
	@failed=; for which in $(WHICH); do venv=$(VENV)-$$which && $(PYTHON) -m venv $$venv && \
		$(PYTHON) tests/helpers/dependency_versions.py $$which $(addprefix torch==,$(TORCH)) > $$venv.txt && \
		$$venv/bin/python -m pip install --quiet --constraint $$venv.txt --editable '.[dev]' && \
		$$venv/bin/python -m pip freeze --exclude-editable > $$venv.txt && \
		$$venv/bin/python -m pytest -q $(TOGETHER) \
			$$(test $$which = newest || echo -W ignore::DeprecationWarning) || failed="$$failed $$which"; done; \
		test -z "$$failed" || { echo "failed with the$$failed versions: $(VENV)-WHICH.txt lists them"; exit 1; }

evidence: $(VENV)/dev.stamp ## test claims about learning rates, and write docs/evidence.md (45 minutes)
	$(BIN)/python -m evidence

evidence-quick: $(VENV)/dev.stamp ## a few steps of each of these experiments, into outputs/ (two or three minutes)
	$(BIN)/python -m evidence --quick

fix: $(VENV)/dev.stamp ## make the corrections that ruff can make
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
