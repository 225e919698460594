# One target per task; `make` alone lists them. CI calls the same ones.
.DEFAULT_GOAL := help
.PHONY: help setup runnable run up shell table status report test outages chaos bench scale lint format audit lock clean

PYTHON ?= python3
UV_CACHE_DIR ?= $(CURDIR)/.local/cache
export UV_CACHE_DIR
# As pip does: the certificate of a company's proxy is in the system's store.
export UV_SYSTEM_CERTS := 1
# Without bytecode each of the stack's six processes would compile Prefect again, which takes four seconds.
unexport PYTHONDONTWRITEBYTECODE
# Prefect and matplotlib create folders in the home directory when they are imported.
export MPLCONFIGDIR := $(CURDIR)/.local/matplotlib
test outages chaos bench scale: export PREFECT_HOME := $(CURDIR)/.local/prefect-home
BIN := .venv/bin
STACK := $(BIN)/python -m deployments.local
QUIET := $(if $(VERBOSE),,--quiet)
# --no-deps: the locks are complete, and pip does not see that the pin of `sqlalchemy` covers `sqlalchemy[asyncio]`.
PIP := bin/python -m pip install $(QUIET) --no-cache-dir --disable-pip-version-check --no-deps --require-hashes -r
# What running needs; `make setup` installs all of it, too.
INSTALLED := $(firstword $(wildcard .venv/.ready) .venv/.runnable)

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { line = sprintf("  make %-8s", $$1); n = split($$2, words, " "); \
		for (i = 1; i <= n; i++) { if (length(line " " words[i]) > 80) { print line; line = sprintf("%15s", "") } \
		line = line " " words[i] } print line }' $(MAKEFILE_LIST)

setup: .venv/.ready .venv-store/.ready ## create .venv with all packages, development tools included
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

run: runnable ## fill a table once: REGION=10000002, MARKETS="10000002 60003760", ESI_URL=https://esi.evetech.net, STORE=aws, VERBOSE=1
	@$(STACK) run

up: runnable ## keep the table fresh until Ctrl-C, with Prefect's UI and the schedule on
	@$(STACK) up

shell: runnable ## open a shell that finds the stack's Prefect, market and store
	@$(STACK) shell

table: runnable ## print the table's records, most traded first: TYPE="Tritanium", REGION=10000002, MARKET=60003760, STORE=aws
	@$(STACK) table

status: runnable ## print how fresh tables are and how their runs ended; fail if one is stale or failed: REGION=10000002, MARKETS=60003760, STORE=aws
	@$(STACK) status

report: runnable ## write the table and its last runs to a single HTML file: REGION=10000002, MARKET=60003760, RUNS=20, STORE=aws
	@$(STACK) report

PYTEST := $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder
test: setup ## run all tests except those of `make outages`; ALL=1: those too
	@$(PYTEST) $(if $(ALL),-n 5,-n $$(($$(nproc) + 1)) -m "not outage")

outages: setup ## run the tests that start whole stacks, or kill the worker or Prefect's server: side by side, as most of them wait
	@$(PYTEST) -m outage -n 4 $$(grep -rl --include='test_*.py' 'mark\.outage' tests)

chaos: setup ## play random faults against the flow and check the table after every run: N=1000, SEED=7, KILLS=100
	@$(BIN)/python -m tests.support.chaos $(if $(N),--schedules $(N)) $(if $(SEED),--seed $(SEED)) $(if $(KILLS),--kills $(KILLS))

bench: setup ## measure the flow beside a plain script, write docs/performance.md; QUICK=1: four minutes, writes .local only; REPEATS=1
	@$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(if $(REPEATS),--repeats $(REPEATS))

scale: setup ## run all regions on PostgreSQL, Redis, API servers and workers of this machine, with kills: WORKERS=4, KILLS=0 for none
	@$(BIN)/python -m benchmarks.scale $(if $(WORKERS),--workers $(WORKERS)) $(if $(filter 0 no off,$(KILLS)),--no-kills)

lint: setup ## check format, rules and types, the Dockerfile and the AWS template
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy
	@$(BIN)/hadolint deployments/docker/Dockerfile && $(BIN)/cfn-lint deployments/aws/market-data.yaml

format: setup ## format, and fix what the rules can fix
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

AUDIT := UV_TOOL_DIR=.local/tools $(BIN)/uv tool run pip-audit@2.10.1 --disable-pip --require-hashes --progress-spinner off
audit: setup ## check the locked packages for known vulnerabilities
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
lock: setup ## refresh the locks, with the newest versions that pyproject.toml allows
	@$(LOCK) --upgrade pyproject.toml $(EXTRAS) --group dev -o requirements.lock
	@$(LOCK) --upgrade pyproject.toml $(EXTRAS) --constraint requirements.lock -o requirements-run.lock
	@$(LOCK) --upgrade deployments/local/store.in -o deployments/local/store.lock

clean: ## remove everything that make has created
	@rm -rf .venv .venv-store .local .hypothesis .mypy_cache .pytest_cache .ruff_cache
