# `make` alone shows what there is. The first target that needs it builds .venv from pyproject.toml.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
# Half of what tests do is to wait for servers, so twice as many of them run as there are cores.
WORKERS ?= 4

# Tests start some hundred processes. Each would compile the package anew where the environment forbids to keep that.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help test types tested prove demo bench conformance format clean

help: ## Show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

test: $(READY) ## Every check: format, lint, types, layers, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(MAKE) --no-print-directory --jobs 2 types tested

types: $(READY) ## Check types and layers
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# To collect the tests compiles every module; else each of the workers would, all at once.
tested: $(READY) ## Run the tests
	$(BIN)/python -m pytest --collect-only --quiet --quiet > .venv/collected || (cat .venv/collected && false)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadscope --no-loadscope-reorder

prove: $(READY) ## The proofs that take hours: kills, stops, the stores' deaths, many examples
	$(BIN)/python -m prove

demo: $(READY) ## Two shops on a bad network: one charges twice, one does not
	$(BIN)/retrysafe demo

bench: $(READY) ## Measure what protection costs on this machine
	$(BIN)/python -m bench.run

conformance: $(READY) ## Judge the public packages and our own doors, and write the page
	$(BIN)/python -m conformance.run --write-docs

format: $(READY) ## Format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove what was built
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The group is handed over as a file, because the pip in Python 3.11 does not know dependency groups.
$(READY): pyproject.toml model/tools.txt
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["dev"], sep="\n")' > .venv/dev.txt
	$(BIN)/python -m pip install --quiet --no-user --editable '.[all]' --requirement .venv/dev.txt
	$(BIN)/python -m pip install --quiet --no-user --no-deps --requirement model/tools.txt
	touch $@
