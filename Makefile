# Everything lives in .venv; `make setup` runs again only when what it installs has changed.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: setup demo test lint format bench clean

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	    { echo "latentmill needs Python 3.11 (MindSpore 2.8.0 has wheels for it); set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e '.[worker,embedded,dev]'
	@touch $@

demo: setup
	$(BIN)/latentmill demo --output demo-out

test: lint
	$(BIN)/pytest

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: setup
	$(BIN)/python -m benchmarks.full_size

clean:
	rm -rf .venv demo-out build *.egg-info .mypy_cache .pytest_cache .ruff_cache
