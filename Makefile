# Everything runs in .venv, which is made on first use from the pinned requirements. See CONTRIBUTING.md.

VENV := .venv
BIN := $(VENV)/bin
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip -qq
UV_VERSION := 0.13.9
DEMO_ARGS ?= --overwrite
# Each file of tests in one process, as its tests share what is dear to make.
PYTEST_PARALLEL ?= -n logical --maxprocesses 4 --dist loadfile
PYTEST_ARGS ?=

# The interpreter .venv is made with. Without PYTHON=... the first of these that is a Python 3.10-3.13.
ifeq ($(origin PYTHON),undefined)
CANDIDATES := python3 python3.13 python3.12 python3.11 python3.10 python
else
CANDIDATES := $(PYTHON)
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test dev lint format lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Options: PYTHON=python3.12 (which Python .venv is made with), DEMO_ARGS='-o DIR', PYTEST_ARGS='-k NAME', PYTEST_PARALLEL= (tests in one process)"

demo: $(VENV)/.run ## Set up, then run the whole path on Pt13 (options: DEMO_ARGS)
	$(BIN)/tfgen demo $(DEMO_ARGS)

test: lint ## Set up, then lint, check types and run the tests (options: PYTEST_ARGS)
	$(BIN)/python -m pytest $(PYTEST_PARALLEL) $(PYTEST_ARGS)

dev: $(VENV)/.dev ## Only set up .venv for development

lint: $(VENV)/.dev ## Lint, check the formatting, the types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.dev ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

lock: | $(BIN)/pip ## Pin the newest versions that pyproject.toml allows (UPGRADE=1), or only what changed there
	@$(PIP) install uv==$(UV_VERSION)
	$(COMPILE) -o requirements.txt
	$(COMPILE) -c requirements.txt --extra dev -o requirements-dev.txt

COMPILE = $(BIN)/uv pip compile -q pyproject.toml --group build --universal --python-version 3.10 --no-annotate \
	--custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)

clean: ## Remove .venv, caches and builds; what commands wrote (demo/, *.h5, ...) stays
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find tfgen tests scripts -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# The stamps say which requirements .venv holds; a changed lock or pyproject.toml installs again.
$(VENV)/.run: requirements.txt pyproject.toml | $(BIN)/pip
	@echo "Installing the pinned dependencies into $(VENV) (the first time several hundred MB to download, about 2 minutes) ..."
	@$(PIP) install --only-binary :all: -r requirements.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements.txt requirements-dev.txt pyproject.toml | $(BIN)/pip
	@echo "Installing the pinned dependencies and the tools for tests into $(VENV) (the first time several hundred MB to download, about 2 minutes) ..."
	@$(PIP) install --only-binary :all: -r requirements-dev.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $(VENV)/.run $@

# pip is the last thing that venv puts there: an interrupted start is made anew.
$(BIN)/pip:
	@for python in $(CANDIDATES); do \
	  if "$$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
	    echo "Making $(VENV) with $$("$$python" --version) ($$python)"; \
	    "$$python" -m venv --clear $(VENV) || { \
	      rm -rf $(VENV); \
	      echo "error: $$python could not make $(VENV); does it have venv and pip? (Debian: apt install python3-venv)" >&2; \
	      exit 1; }; \
	    exit 0; \
	  fi; \
	done; \
	echo "error: tfgen needs Python 3.10-3.13, and none of these is one: $(CANDIDATES); name one with make PYTHON=..." >&2; \
	exit 1
