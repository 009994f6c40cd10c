# The one list of commands, which `make` prints. Each command sets up its environment at first use.
# This file works with GNU Make 3.81, which macOS ships, and with newer versions.

.DEFAULT_GOAL := help
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
PACKAGES := ledger ingest processors runtime cli plexy_ledger

# The environment is ready if a file of this name exists. The name contains a checksum of the locked
# dependencies, so that changed dependencies cause a new installation, and a mere checkout does not.
READY := $(VENV)/.ready-$(shell cat requirements/build.txt requirements/dev.txt \
	requirements/docs.txt pyproject.toml | cksum | cut -d ' ' -f 1)

# `make PYTHON=/path/to/python3` chooses the Python of the environment. By default, a distribution's
# own Python comes first, because it is compiled with a profile (PGO). With such a Python, a worker
# folds a fifth more events than with a Python that was compiled without a profile
# (docs/performance.md).
NAMES := python3.14 python3.13 python3.12 python3.11 python3
PYTHONS := $(if $(PYTHON),$(PYTHON),$(addprefix /usr/bin/,$(NAMES)) $(NAMES))
# Debian's Python may lack the modules that make environments. Such a Python is usable only if uv
# makes the environment.
UV := $(shell command -v uv)
WILL_DO := import sys$(if $(UV),,, ensurepip, venv); sys.exit(sys.version_info < (3, 11))
# If `PYTHON` is not the Python of the environment, the environment is replaced.
ifdef PYTHON
ifneq ($(shell $(PYTHON) -VV 2>&1),$(shell $(BIN)/python -VV 2>&1))
$(shell rm -f $(VENV)/.ready-*)
endif
endif

# On two cores, `make test` runs the tests in three processes, because tests on a broker often wait.
# `make test-rest` uses two processes, because each of its tests starts several brokers and workers.
# Tests of one file stay in one process, because they share workers that take seconds to start. The
# files start in the order of tests/conftest.py, because xdist's own order would start long files
# last.
PYTEST := $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder --durations 12

# The tests on a real broker that `make test` runs: the main path, killed workers, two workers, a
# stopped broker, the page in a browser, and the command line.
CORE := tests/kafka/page $(addprefix tests/kafka/,test_worker.py test_ingest_on_kafka.py \
	test_verify.py test_entry_points.py test_status.py)
REST := $(filter-out $(CORE),$(wildcard tests/kafka/page tests/kafka/test_*.py))
UNITS := $(dir $(filter-out tests/kafka/%,$(wildcard tests/*/__init__.py))) \
	$(wildcard tests/test_*.py)

# pip installs uv, and uv installs everything else. On a busy machine, uv takes 30 to 45 s for this;
# pip took 146 s.
# The tests start hundreds of processes, and compiled bytecode halves the time of a start.
INSTALL := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python

# The lock files name no package host and no path, so that they work with any mirror.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'

.PHONY: help setup demo run test test-rest test-all check docs docs-serve bench bench-ingest bench-latency bench-scale \
	faults fuzz audit contract format lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## make .venv with the locked dependencies; every other command does this too

demo: $(READY) ## deliver sample webhooks, late, twice and out of order, and show the ledger
	@$(BIN)/plexy-ledger demo

run: $(READY) ## start Kafka, ingest and a worker on this machine; Ctrl-C stops them
	@trap : INT; $(BIN)/plexy-ledger run || { code=$$?; test $$code -eq 130 || exit $$code; }

test: $(READY) ## run the unit tests, the examples in docstrings, and the main tests on a real broker
	@started=$$(date +%s); set -x; \
	$(PYTEST) --numprocesses 3 --doctest-modules $(CORE) $(UNITS) $(PACKAGES) && \
	{ set +x; } 2>/dev/null && echo "make test: passed after $$(($$(date +%s) - started)) s"

test-rest: $(READY) ## run the tests on a real broker, except for those of `make test`
	$(PYTEST) --numprocesses 3 $(REST)

test-all: test test-rest ## run every test

check: $(READY) ## check format, lint, types, imports, shell scripts and the repository's rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy examples
	$(BIN)/lint-imports
	@$(CHECK_SHELL_SCRIPTS)
	@$(CHECK_COMPOSE_FILE)
	$(BIN)/python -m pytest --quiet tests/test_repository.py tests/test_deployment.py tests/test_kubernetes.py

docs: $(READY) ## build the site in build/site; DOCS_PICTURES=required fails if the page's pictures are missing
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet && echo 'build/site/index.html is built'

docs-serve: $(READY) ## serve the site on 127.0.0.1:8080, and rebuild it whenever a page changes
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve --dev-addr 127.0.0.1:8080

bench: $(READY) ## measure this ledger and its peers; takes some twelve minutes
	@$(BIN)/python -m bench.ingest; ingest=$$?; $(BIN)/python -m bench; fold=$$?; \
	exit $$((ingest > fold ? ingest : fold))

bench-ingest: $(READY) ## measure only ingress and its peers; takes some three minutes, needs wrk
	$(BIN)/python -m bench.ingest $(FLAGS)

bench-latency: $(READY) ## measure the time until a delivery is kept and shown; takes three minutes
	$(BIN)/python -m bench.latency $(FLAGS)

bench-scale: $(READY) ## measure a worker while its state grows (slow); FLAGS="--orders 10000 100000"
	$(BIN)/python -m bench.scale $(FLAGS)

faults: $(READY) ## cause faults during deliveries, then check the ledger; FLAGS="--faults 20 --seed 7"
	$(BIN)/python -m faults $(FLAGS)

fuzz: $(READY) ## attack ingress during honest deliveries; FLAGS="--count 100000 --seconds 30"
	$(BIN)/python -m tests.fuzz $(FLAGS)

audit: $(READY) ## check every locked dependency against the advisory database; needs the internet
	@$(BIN)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off \
		--requirement requirements/dev.txt --requirement requirements/docs.txt || { \
		echo 'audit: failed. If no advisory is listed above, the database did not answer, or does' \
			'not know a package, for example because a mirror has no advisories. Then the' \
			'audit proves nothing.' >&2; \
		exit 1; \
	}

contract: $(READY) ## make docs/events from the types; FLAGS=--release also keeps a released copy
	$(BIN)/python -m cli.contract $(FLAGS)

format: $(READY) ## format the code, and apply the linter's own fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(READY) ## lock the dependencies in requirements/; FLAGS=--upgrade takes newer versions
	$(COMPILE) $(FLAGS) --group dev --extra tracing pyproject.toml \
		--output-file requirements/dev.txt
	$(COMPILE) --constraints requirements/dev.txt --extra tracing pyproject.toml \
		--output-file requirements/runtime.txt
	$(BIN)/python -c "$(BUILD_TOOLS)" | $(COMPILE) --constraints requirements/dev.txt - \
		--output-file requirements/build.txt
	$(COMPILE) $(FLAGS) --constraints requirements/dev.txt --group docs \
		--output-file requirements/docs.txt
	$(COMPILE) $(FLAGS) --group quix --output-file requirements/quix.txt

clean: ## delete the output of the other commands, but not the data in .ledger
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment that is broken, for example by an update of the system's Python, is made again.
$(READY):
	@for python in $(PYTHONS); do \
		if $$python -c '$(WILL_DO)' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo 'Expected Python 3.11 or newer with its venv module, found none among: $(PYTHONS).' >&2; \
		echo 'On Debian and Ubuntu: apt install python3-venv. Or install uv, or name a Python:' \
			'make PYTHON=/path/to/python3' >&2; \
		exit 1; \
	fi; \
	echo "Installing the locked dependencies into $(VENV), once, for $$($$found -V) ($$found) ..."; \
	if [ "$$($(BIN)/python -VV 2>/dev/null)" != "$$($$found -VV)" ]; then \
		rm -rf $(VENV); \
		$(if $(UV),uv venv --quiet --python $$found $(VENV),$$found -m venv $(VENV)); \
	fi
	@$(if $(UV),uv pip install --python $(BIN)/python,$(BIN)/python -m pip install \
		--disable-pip-version-check) --quiet --require-hashes --requirement requirements/build.txt
	@$(INSTALL) --require-hashes --requirement requirements/dev.txt \
		--requirement requirements/docs.txt
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.ready-*
	@touch $@

# These tools install everything else: uv, and the tools that build the project.
BUILD_TOOLS := import tomllib; project = tomllib.load(open('pyproject.toml', 'rb')); \
	print('uv', 'editables', *project['build-system']['requires'], sep='\n')

# A script is a file whose first line names a shell.
define CHECK_SHELL_SCRIPTS
scripts=$$(git ls-files --cached --others --exclude-standard \
	| while read -r file; do head -n 1 "$$file" 2>/dev/null | grep -q '^#!.*sh' && echo "$$file"; done); \
shellcheck=$$(command -v $(BIN)/shellcheck shellcheck | head -n 1); \
if [ -z "$$shellcheck" ]; then \
	echo "shellcheck is not installed, so these scripts are not checked:" $$scripts; \
else \
	echo "$$shellcheck" $$scripts; "$$shellcheck" $$scripts; \
fi
endef

# Docker's own plug-in checks the format of the file; tests/test_deployment.py checks our own rules.
define CHECK_COMPOSE_FILE
if docker compose version >/dev/null 2>&1; then \
	echo "docker compose config"; \
	LEDGER_WEBHOOK_SECRETS=unused LEDGER_API_TOKEN=unused docker compose config --quiet; \
else \
	echo "docker compose is not installed: its own check of docker-compose.yml is left out"; \
fi
endef
