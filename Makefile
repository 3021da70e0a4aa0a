# `make` lists what there is. Each target sets up what it needs in .venv, once.

PYTHON ?= python3
BIN    := .venv/bin
STAMP  := .venv/.stamp
# Extras stay in the lock: pip asks for the newest `coverage[toml]` where only `coverage` is pinned.
LOCK   := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-strip-extras \
          --no-emit-index-url \
          --python-version 3.11 --custom-compile-command "make lock"
DOORS  := pyproject.toml --extra platform --extra postgresql

# A file is one process's, and files start in the order of their names: the slow ones first.
WORKERS ?= -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format bench fuzz nightly mutants tcb requirements lock wheels clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 24

setup: $(STAMP) ## make .venv from the hashed lock files

$(STAMP): requirements/dev.txt pyproject.toml audit/pyproject.toml dev/pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; \
	  echo "placet: cannot make .venv; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --no-build-isolation --no-index -e . -e audit -e dev
	@touch $@

demo: $(STAMP) ## five vaults, one app, an upgrade refused until its owner says so
	$(BIN)/placet demo

test: $(STAMP) ## every test, branch coverage of the trusted rooms, requirements
	@mkdir -p build
	$(BIN)/python -m pytest $(WORKERS) --requirements --cov --cov-report=term \
	  --junitxml=build/junit.xml

lint: $(STAMP) ## ruff, mypy --strict, import directions, size of the trusted base
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/tcb.py

format: $(STAMP) ## let ruff format and mend what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## measure, beside the same work done in process (build/bench.json)
	@mkdir -p build
	$(BIN)/python bench/run.py

fuzz: $(STAMP) ## every parser against hostile bytes, FUZZ_SECONDS each (5)
	@$(BIN)/python -c "import atheris" 2>/dev/null || $(BIN)/python -m pip install --quiet \
	  --disable-pip-version-check --only-binary :all: --require-hashes -r requirements/fuzz.txt \
	  || true
	@$(BIN)/python tools/fuzz.py

nightly: $(STAMP) ## 100,000 seeds of the network, all orders of short scripts
	@$(BIN)/python tools/nightly.py

mutants: $(STAMP) ## delete each check of the verifier, core and policy in turn; a test must fail
	@$(BIN)/python tools/mutants.py --at-least 100
	@$(BIN)/python tools/mutants.py --set core --at-least 90
	@$(BIN)/python tools/mutants.py --set policy --at-least 90

tcb: $(STAMP) ## lines per trusted room, and what the vault's trusted base depends on
	@$(BIN)/python tools/tcb.py

requirements: $(STAMP) ## run the tests that prove requirements, print which
	@mkdir -p build
	@$(BIN)/python -m pytest -q $(WORKERS) -m req --requirements; status=$$?; \
	  $(BIN)/python tools/requirements.py && exit $$status

# The versions in the files stay until `make lock LOCKFLAGS=--upgrade`.
lock: $(STAMP) ## write the hashed requirements/*.txt again
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --require-hashes -r requirements/lock.txt
	$(LOCK) $(LOCKFLAGS) requirements/lock.in -o requirements/lock.txt
	$(LOCK) $(LOCKFLAGS) $(DOORS) requirements/dev.in -o requirements/dev.txt
	$(LOCK) $(LOCKFLAGS) requirements/fuzz.in -o requirements/fuzz.txt
	$(LOCK) $(DOORS) --constraint requirements/dev.txt -o requirements/runtime.txt

wheels: $(STAMP) ## the three wheels, in dist/
	$(BIN)/python -m build --no-isolation --wheel --outdir dist .
	$(BIN)/python -m build --no-isolation --wheel --outdir dist audit
	$(BIN)/python -m build --no-isolation --wheel --outdir dist dev

clean: ## everything made, .venv included
	rm -rf .venv build dist .coverage .hypothesis .import_linter_cache .mypy_cache \
	  .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
