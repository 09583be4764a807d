# Everything is installed into .venv; nothing else on the machine is touched.
PYTHON ?= python3
BIN := .venv/bin
NIGHT := demo/night
TABLES := demo/tables

.PHONY: help install demo test lint types check clean

help:  ## Show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# uv resolves torch and torchaudio from the same index; plain pip may mix builds that do not load together.
.venv/installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11 or later" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$$($(PYTHON) --version) is too old: naturelm needs Python 3.11 or later; try make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraints constraints.txt --editable '.[app,train,dev]'
	@touch $@

install: .venv/installed  ## Install naturelm and its tools into .venv

demo: .venv/installed  ## Make a small station night, run the archive job on it, print the tables
	$(BIN)/python examples/01_make_night.py $(NIGHT)
	$(BIN)/naturelm process $(NIGHT) --out $(TABLES)
	$(BIN)/naturelm summary $(TABLES)
	$(BIN)/naturelm query $(TABLES) "SELECT station, start_local, label, score FROM detections ORDER BY start_local"
	$(BIN)/naturelm query $(TABLES) "SELECT station, start_local, caption, score FROM captions ORDER BY start_local"
	$(BIN)/python examples/02_planted_and_found.py $(NIGHT) $(TABLES)

test: .venv/installed  ## Run the tests
	$(BIN)/python -m pytest

lint: .venv/installed  ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed  ## Check types, also as on Windows
	$(BIN)/mypy
	$(BIN)/mypy --platform win32

check: lint types test  ## Everything that must pass before a commit: lint, format, types, layering, tests

clean:  ## Remove what the targets made
	rm -rf .venv demo .mypy_cache .ruff_cache .pytest_cache *.egg-info
