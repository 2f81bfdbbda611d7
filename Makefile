# Archipel. `make help` lists what there is; every target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install
TORCH := torch==2.13.0# the one package without hashes in the locks: its CPU and CUDA builds are other files
# Policy, trust, egress, ledger, journal and accounting; and the tests that cover them without waiting for anything.
FLOORED := client/policy.py,client/trust.py,client/egress.py,client/ledger.py,client/ledger_file.py,configs/journal.py,strategies/privacy/accounting.py
COVERING := $(patsubst %,tests/client/test_%.py,trust ledger ledger_file ledger_names caps client_app spare records) \
	tests/configs/test_journal.py tests/configs/test_journal_on_a_full_disk.py \
	client/ledger.py configs/journal.py strategies/privacy/accounting.py
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo federation test coverage lint setup docs lock wheel release clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: $(VENV)/.ready ## simulate four real hospitals under differential privacy, and write a report
	$(BIN)/archipel simulate configs/presets/heart_disease.yaml

federation: $(VENV)/.ready ## the same study between five processes over mutual TLS: a coordinator, four hospitals
	$(BIN)/python -m simulations.federation configs/presets/heart_disease.yaml

test: $(VENV)/.ready-test ## every check: format, lint, types, tests with doctests, architecture
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) coverage
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder --durations=10

coverage: $(VENV)/.ready-test ## the floor under what decides and what counts: 95 % of lines and branches, by their own tests
	OMP_NUM_THREADS=1 $(BIN)/coverage run --branch --include='$(FLOORED)' -m pytest -q $(COVERING)
	$(BIN)/coverage report --show-missing --fail-under=95

setup: $(VENV)/.ready-test ## install what the lock file says into .venv, with what the checks need

lint: $(VENV)/.ready-test ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.ready ## write the generated pages anew: trees, recipes, the picture, references of keys and records
	$(BIN)/python -m tests.trees
	$(BIN)/python -m tests.recipes
	$(BIN)/archipel explain --markdown > configs/KEYS.md.part && mv configs/KEYS.md.part configs/KEYS.md
	$(BIN)/python -m configs.records

lock: ## write both lock files anew from pyproject.toml: every version, and the hashes of its files for every platform
	test -x $(VENV)-lock/bin/uv || { $(PYTHON) -m venv $(VENV)-lock && $(VENV)-lock/bin/pip install uv; }
	PATH="$(VENV)-lock/bin:$$PATH" .ci/lock
	rm -rf $(VENV)-lock

wheel: $(VENV)/.ready ## build dist/*.whl from the last commit: the same bits on every machine, under any umask
	.ci/wheel $(BIN)/python dist

release: $(VENV)/.ready-test ## VERSION=X.Y.Z: changelog, version, commit, tag, wheel, list of components
	.ci/release $(BIN)/python "$(VERSION)"

clean: ## remove the environment, caches and runs
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info runs

# The stamps are written last: an interrupted installation starts again.
$(VENV)/.ready: pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Archipel needs Python 3.11 or newer"'
	@echo 'installing into $(VENV): 1.3 GB from the package index, two minutes or more; each package is named as it comes'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes --no-deps --requirement requirements.lock
	$(PIP) $(TORCH)
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.ready-test: $(VENV)/.ready tests/requirements.lock
	$(PIP) --require-hashes --no-deps --requirement tests/requirements.lock
	touch $@
