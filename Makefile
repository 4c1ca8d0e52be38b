# `make demo` and `make test` need only Python 3.11 or later, make and a package registry: they set up .venv themselves.

MIN_VERSION := 3.11
IS_RECENT := import sys; sys.exit(sys.version_info < tuple(map(int, "$(MIN_VERSION)".split("."))))
# The first Python that is recent enough; `make PYTHON=/path/to/python test` chooses another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c '$(IS_RECENT)' 2>/dev/null && echo $$p && break; done)

VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := requirements/constraints.txt requirements/build-constraints.txt
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	--constraint requirements/constraints.txt --build-constraint requirements/build-constraints.txt
INSTALLED := $(VENV)/.installed
INSTALLED_DOCS := $(VENV)/.installed-docs

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs bench bench-check bench-growth clean

BENCH := .venv-bench/bin
BENCH_INSTALL := $(BENCH)/python -m pip install --quiet --disable-pip-version-check --constraint requirements/constraints.txt
INSTALLED_BENCH := .venv-bench/.installed
INSTALLED_BENCH_CHECK := .venv-bench/.installed-check
# Wheels of torch without CUDA; where this index cannot be reached, or is set to nothing, torch comes from the usual one.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## Train on handwritten digits and say where the results are
	$(BIN)/python examples/digits.py

test: lint ## Lint, types, layers, then all tests and doctests
	$(BIN)/python -m pytest

lint: $(INSTALLED) ## Everything of `make test` that runs no test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: $(INSTALLED_DOCS) ## Build the documentation into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

bench: $(INSTALLED_BENCH) ## Measure beside the peers (GROUP=A: one group; RECORD=1: into benchmarks/README.md)
	$(BENCH)/python -m benchmarks run $(GROUP) $(if $(RECORD),--record)

bench-check: $(INSTALLED_BENCH_CHECK) ## Test the benchmarks with all peers, on little data
	$(BENCH)/python -m pytest tests/test_benchmarks.py

bench-growth: $(INSTALLED_BENCH) ## Draw how cost grows with size, into benchmarks/ (TOPIC=claims: one topic)
	$(BENCH)/python -m benchmarks growth $(TOPIC)

clean: ## Remove what tools wrote; .venv and .venv-bench stay
	rm -rf build dist *.egg-info docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .tox
	find fireworks tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment that is there already is kept, whoever made it, as long as its Python is recent enough.
$(BIN)/python:
	@test -n '$(PYTHON)' || { echo 'Found no Python $(MIN_VERSION) or later; name one: make PYTHON=/path/to/python3' >&2; exit 1; }
	@'$(PYTHON)' -c '$(IS_RECENT)' || { echo 'Need Python $(MIN_VERSION) or later, not $(PYTHON)' >&2; exit 1; }
	'$(PYTHON)' -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(INSTALLED): Makefile setup.py pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	@$(BIN)/python -c '$(IS_RECENT)' || { echo '$(VENV) has an older Python than $(MIN_VERSION); remove it' >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.3'
	$(PIP_INSTALL) --editable '.[test,visdom]'
	@touch $@

$(INSTALLED_DOCS): $(INSTALLED)
	$(PIP_INSTALL) --editable '.[docs]'
	@touch $@

# A peer that cannot be installed here is left out; the others follow one by one.
$(INSTALLED_BENCH): Makefile setup.py requirements/constraints.txt benchmarks/requirements.txt
	@test -n '$(PYTHON)' || { echo 'Found no Python $(MIN_VERSION) or later; name one: make PYTHON=/path/to/python3' >&2; exit 1; }
	@test -x $(BENCH)/python || '$(PYTHON)' -m venv .venv-bench
	$(BENCH_INSTALL) --retries 0 --timeout 15 $(if $(TORCH_INDEX),--extra-index-url '$(TORCH_INDEX)') torch
	$(BENCH_INSTALL) --editable '.[adbc,optuna,postgresql,tensordict]' matplotlib
	$(BENCH_INSTALL) --requirement benchmarks/requirements.txt || \
		for peer in $$(grep -v '^#' benchmarks/requirements.txt); do \
			$(BENCH_INSTALL) "$$peer" || echo "$$peer cannot be installed here: its column will say absent" >&2; \
		done
	@touch $@

$(INSTALLED_BENCH_CHECK): $(INSTALLED_BENCH)
	$(BENCH_INSTALL) pytest hypothesis
	@touch $@
