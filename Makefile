# A target per habit; `make` alone lists them. CI calls the same ones.
.DEFAULT_GOAL := help
.PHONY: help setup runnable run up shell table status report test outages chaos bench scale lint format audit lock clean

PYTHON ?= python3
UV_CACHE_DIR ?= $(CURDIR)/.local/cache
export UV_CACHE_DIR
# As pip does: a company's proxy has its certificate there.
export UV_SYSTEM_CERTS := 1
# Without bytecode each of the stack's six processes would compile Prefect anew, four seconds each time.
unexport PYTHONDONTWRITEBYTECODE
# Prefect and matplotlib make folders in the home directory as soon as they are imported.
export MPLCONFIGDIR := $(CURDIR)/.local/matplotlib
test outages chaos bench scale: export PREFECT_HOME := $(CURDIR)/.local/prefect-home
BIN := .venv/bin
STACK := $(BIN)/python -m deployments.local
QUIET := $(if $(VERBOSE),,--quiet)
# The locks are complete; of `sqlalchemy[asyncio]` pip would not see that `sqlalchemy` is pinned.
PIP := bin/python -m pip install $(QUIET) --no-cache-dir --disable-pip-version-check --no-deps --require-hashes -r
# What running needs; where `make setup` has installed all, that is there already.
INSTALLED := $(firstword $(wildcard .venv/.ready) .venv/.runnable)

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { line = sprintf("  make %-8s", $$1); n = split($$2, words, " "); \
		for (i = 1; i <= n; i++) { if (length(line " " words[i]) > 80) { print line; line = sprintf("%15s", "") } \
		line = line " " words[i] } print line }' $(MAKEFILE_LIST)

setup: .venv/.ready .venv-store/.ready ## .venv with all packages, those of development as well, ready
runnable: $(INSTALLED) .venv-store/.ready

.venv/.runnable: requirements-run.lock
	@$(PYTHON) -c 'import sys; sys.exit("make needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] \
		+ ": call it as make PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	@echo "setup: .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear .venv
	@mkdir -p .local && sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > .local/uv.lock
	@echo "setup: the packages of $<"
	@{ .venv/$(PIP) .local/uv.lock && $(BIN)/uv pip install $(QUIET) --python $(BIN)/python --require-hashes -r $<; } \
		|| .venv/$(PIP) $<
	@touch $@

.venv/.ready: requirements.lock $(filter %runnable,$(INSTALLED))
	@echo "setup: the packages of $<"
	@$(BIN)/uv pip sync $(QUIET) --python $(BIN)/python --require-hashes $< || .venv/$(PIP) $<
	@touch $@

.venv-store/.ready: deployments/local/store.lock | $(INSTALLED)
	@echo "setup: .venv-store with the local DynamoDB-compatible store"
	@$(PYTHON) -m venv --clear .venv-store
	@$(BIN)/uv pip sync $(QUIET) --python .venv-store/bin/python --require-hashes $< || .venv-store/$(PIP) $<
	@touch $@

run: runnable ## fill a table once: REGION=10000002, ESI_URL=https://esi.evetech.net, STORE=aws, VERBOSE=1
	@$(STACK) run

up: runnable ## the same stack until Ctrl-C, with its UI, and the schedule on
	@$(STACK) up

shell: runnable ## a shell in which Prefect, the market and the store of the stack are found, until it is left
	@$(STACK) shell

table: runnable ## the table's records, most traded first: TYPE="Tritanium", REGION=10000002, STORE=aws
	@$(STACK) table

status: runnable ## how fresh tables are and how their runs go; fails if one is stale or failed: REGION=10000002, STORE=aws
	@$(STACK) status

report: runnable ## the table and its last runs as one HTML file, to be sent to somebody: REGION=10000002, RUNS=20, STORE=aws
	@$(STACK) report

test: setup ## all tests but those of the next line
	@$(BIN)/python -m pytest -m "not outage" -n $$(($$(nproc) + 1)) --dist loadfile --no-loadscope-reorder

outages: setup ## whole stacks, kills of worker and Prefect server, and what comes of them: a quarter of an hour, most of it waiting
	@$(BIN)/python -m pytest -m outage

chaos: setup ## random faults against the flow, and whether the table was ever wrong: N=1000, SEED=7, KILLS=100
	@$(BIN)/python -m tests.support.chaos $(if $(N),--schedules $(N)) $(if $(SEED),--seed $(SEED)) $(if $(KILLS),--kills $(KILLS))

bench: setup ## the flow beside a plain script, and docs/performance.md; QUICK=1 for two minutes and .local alone, REPEATS=1
	@$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(if $(REPEATS),--repeats $(REPEATS))

scale: setup ## all regions on PostgreSQL, Redis, API servers and workers of this machine, with kills: WORKERS=4, KILLS=0 for none
	@$(BIN)/python -m benchmarks.scale $(if $(WORKERS),--workers $(WORKERS)) $(if $(filter 0 no off,$(KILLS)),--no-kills)

lint: setup ## format, rules and types; the Dockerfile and the AWS template
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy
	@$(BIN)/hadolint deployments/docker/Dockerfile && $(BIN)/cfn-lint deployments/aws/market-data.yaml

format: setup ## format, and mend what rules can mend
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

AUDIT := UV_TOOL_DIR=.local/tools $(BIN)/uv tool run pip-audit@2.10.1 --disable-pip --require-hashes --progress-spinner off
audit: setup ## known vulnerabilities of the locked packages
	@for lock in requirements.lock deployments/local/store.lock; do \
		$(AUDIT) -r $$lock > .local/audit.log 2>&1; code=$$?; cat .local/audit.log; \
		unknown=$$(grep -c 'could not be audited' .local/audit.log); \
		if [ $$unknown -gt 0 ]; then echo "audit: the list of known vulnerabilities could not be reached for" \
			"$$unknown packages of $$lock: nothing is said about them"; exit 2; fi; \
		if ! grep -q 'ulnerabilities' .local/audit.log; then \
			echo "audit: the auditor could not run, so nothing is said about $$lock"; exit 2; fi; \
		if [ $$code -gt 0 ]; then exit $$code; fi; done

LOCK := $(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate
EXTRAS := --extra telemetry --extra scale
lock: setup ## the locks of all packages, of those that running needs, and of the store, as new as pyproject.toml allows
	@$(LOCK) --upgrade pyproject.toml $(EXTRAS) --group dev -o requirements.lock
	@$(LOCK) --upgrade pyproject.toml $(EXTRAS) --constraint requirements.lock -o requirements-run.lock
	@$(LOCK) --upgrade deployments/local/store.in -o deployments/local/store.lock

clean: ## remove what make has made
	@rm -rf .venv .venv-store .local .hypothesis .mypy_cache .pytest_cache .ruff_cache
