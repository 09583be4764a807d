# Everything is installed into .venv; nothing else on the machine is touched.
PYTHON ?= python3
BIN := .venv/bin
NIGHT := demo/night
TABLES := demo/tables
# Processes that run side by side have one thread each: several would wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
# Each process may start Ray, a browser, object stores and models: a few are enough.
IN_PARALLEL := --numprocesses=logical --maxprocesses=4 --dist=loadgroup --no-loadscope-reorder
SEED := $(shell date +%s)

.PHONY: help install demo test test-slow test-all test-random lint types docs check clean

help:  ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# uv resolves torch and torchaudio from the same index; plain pip may mix builds that do not load together. Bytecode is
# compiled once here: where Python may not write it (PYTHONDONTWRITEBYTECODE), each start of a command would compile it
# again.
.venv/installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11 or later" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$$($(PYTHON) --version) is too old: naturelm needs Python 3.11 or later; try make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraints constraints.txt --editable '.[app,docs,evaluate,train,dev]'
	@touch $@

install: .venv/installed  ## Install naturelm and its tools into .venv

demo: .venv/installed  ## Make a small station night, run the archive job on it, print the tables
	$(BIN)/python examples/01_make_night.py $(NIGHT)
	$(BIN)/naturelm process $(NIGHT) --out $(TABLES)
	$(BIN)/naturelm summary $(TABLES)
	$(BIN)/naturelm query $(TABLES) "SELECT station, start_local, label, score FROM detections ORDER BY start_local"
	$(BIN)/naturelm query $(TABLES) "SELECT station, start_local, caption, score FROM captions ORDER BY start_local"
	$(BIN)/python examples/02_planted_and_found.py $(NIGHT) $(TABLES)

test: .venv/installed  ## Run the tests, except the slow ones
	$(PYTEST) $(IN_PARALLEL) -m "not slow"

test-slow: .venv/installed  ## Run the slow tests, and try more examples of the properties
	$(PYTEST) $(IN_PARALLEL) -m "slow or hypothesis" --hypothesis-profile=thorough

test-all: test test-slow  ## Run all tests

test-random: .venv/installed  ## Try many random examples of the properties; SEED=N repeats a run
	$(PYTEST) $(IN_PARALLEL) -m hypothesis --hypothesis-profile=random --hypothesis-seed=$(SEED)

lint: .venv/installed  ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed  ## Check types, also as on Windows
	$(BIN)/mypy
	$(BIN)/mypy --platform win32

check: lint types docs test  ## What to run before a commit: lint, format, types, documentation, quick tests

docs: .venv/installed  ## Build the documentation into site/, without network
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "site/index.html; with search: $(BIN)/python -m http.server --bind 127.0.0.1 --directory site"

clean:  ## Remove what the targets made
	rm -rf .venv demo site .mypy_cache .ruff_cache .pytest_cache *.egg-info
