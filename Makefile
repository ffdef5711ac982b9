# Everything lives in .venv; `make setup` runs again only when what it installs has changed.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: setup demo browser test chaos lint format bench bench-full bench-api bench-queue audit clean

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	    { echo "latentmill needs Python 3.11 (MindSpore 2.8.0 has wheels for it); set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e '.[worker,embedded,api,dev]'
	@touch $@

demo: setup
	$(BIN)/latentmill demo --output demo-out

# The web page is tested in a real Chromium. Debian's takes a minute to install.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { \
	    root=$$([ "$$(id -u)" = 0 ] || echo "sudo -n"); \
	    $$root apt-get update -qq && $$root apt-get install -y -qq --no-install-recommends chromium; \
	} || echo "no Chromium could be installed: the tests of the web page will say so and fail"

test: lint browser
	$(BIN)/pytest

# Every fault on both databases, then random ones; SEED=… for others. Some minutes each.
SEED ?= 7
chaos: setup
	$(BIN)/pytest -m "slow or not slow" tests/faults
	$(BIN)/python -m tests.faults.chaos --jobs 1000 --seed $(SEED) --database sqlite --report chaos-sqlite.json
	$(BIN)/python -m tests.faults.chaos --jobs 1000 --seed $(SEED) --database postgres --report chaos-postgres.json

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Beside diffusers on torch, which gets an environment of its own.
REFERENCE ?= .reference/bin/python
bench: setup $(REFERENCE)
	$(BIN)/python -m benchmarks.compare --reference $(REFERENCE)
	$(BIN)/python -m benchmarks.mixed

bench-full: setup $(REFERENCE)
	$(BIN)/python -m benchmarks.full_size sd15 --folder .sd15
	$(BIN)/python -m benchmarks.compare --reference $(REFERENCE) --checkpoint .sd15 --size 512 --repeats 2 --most-rows 2 --no-jobs

.reference/bin/python: tests/reference/requirements.txt
	$(PYTHON) -m venv .reference
	.reference/bin/pip install --disable-pip-version-check -r $<
	@touch $@

# Known vulnerabilities of what constraints.txt pins; asks the package index.
audit: .audit/bin/pip-audit
	.audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

.audit/bin/pip-audit:
	$(PYTHON) -m venv .audit
	.audit/bin/pip install --disable-pip-version-check pip-audit

bench-api: setup
	$(BIN)/python -m benchmarks.api

bench-queue: setup
	$(BIN)/python -m benchmarks.queue

clean:
	rm -rf .venv .reference .audit .sd15 demo-out build *.egg-info .mypy_cache .pytest_cache .ruff_cache
