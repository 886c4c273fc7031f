# Set-up, tests and checks. `make quickstart` and `make test` do all the set-up themselves on a bare machine with
# Python 3.11 or newer; every target may be run again at any time.

VENV ?= .venv
BIN := $(VENV)/bin
# The first interpreter that really runs and is new enough (a pyenv shim may exist without its version).
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
STAMP := $(VENV)/.installed
# Files of tests that run side by side.
TEST_PROCESSES ?= 2
DEMO_HOME = $${DFT_SEARCH_HOME:-$$HOME/dft-search}

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-slow check bench bench-search bench-tracking bench-evaluation bench-step clean

help:  ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

install: $(STAMP)  ## create .venv with the tested versions

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer found; install one, or set PYTHON=/path/to/python" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "make: $(PYTHON) has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "Creating $(VENV) with $(PYTHON)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing the tested versions into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

quickstart: install  ## run the built-in study: search, report, export, verify, train the winner
	@set -eu; home="$(DEMO_HOME)"; name=quickstart; n=1; \
	while [ -e "$$home/studies/$$name" ]; do n=$$((n + 1)); name=quickstart-$$n; done; \
	bundle="$$home/bundles/$$name"; \
	$(BIN)/dft-search search quickstart --name $$name; \
	$(BIN)/dft-search report $$name; \
	$(BIN)/dft-search export $$name --out "$$bundle"; \
	$(BIN)/dft-search verify "$$bundle"; \
	$(BIN)/dft-search train "$$bundle" --set 'recipe.training.length={steps: 20}'; \
	echo; \
	$(BIN)/dft-search report $$name --json 2>/dev/null | \
	  $(BIN)/python -c 'import json, sys; print("Verdict:   ", json.load(sys.stdin)["verdict"])'; \
	echo "Report:     $$home/studies/$$name/report.html"; \
	echo "MLflow UI:  $(BIN)/mlflow ui --backend-store-uri sqlite:///$$home/mlflow.db"; \
	echo "Bundle:     $$bundle"

test: install  ## the default suite: no slow tests, no GPU
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --durations 20

test-slow: install  ## the slow tests: whole studies, clusters, the wheel
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --durations 30 -m 'slow and not gpu'

check: install  ## style, types, import rules, spelling
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/codespell

bench: install  ## what each method does in the built-in world, over 8 seeds (about 20 minutes)
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m tests.benchmarks.demo_arms --seeds 8

bench-search: install  ## turnaround, overhead and quality of a search (about an hour)
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m tests.benchmarks.search_quality
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m tests.benchmarks.turnaround
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m tests.benchmarks.overhead

bench-tracking: install  ## what the record in MLflow costs a study (about five minutes)
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m tests.benchmarks.tracking

bench-evaluation: install  ## log-likelihoods against the harness's own HFLM (about 15 minutes; needs DFT_SEARCH_DATA)
	@$(BIN)/python -m tests.benchmarks.evaluation || [ $$? -eq 3 ]  # 3: inconclusive, which is said

bench-step: install  ## time of a step, of the token losses and how both scale (about an hour; needs DFT_SEARCH_DATA)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@$(BIN)/python -m tests.benchmarks.step || [ $$? -eq 3 ]  # 3: inconclusive, which is said
	@$(BIN)/python -m tests.benchmarks.loss_head || [ $$? -eq 3 ]  # 3: inconclusive, which is said
	@$(BIN)/python -m tests.benchmarks.scaling || [ $$? -eq 3 ]  # 3: inconclusive, which is said

clean:  ## remove the environment, builds and caches
	@rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
