# Every target sets up what it needs. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench campaign lock clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready ## create .venv with the locked dependencies and the camatlas command

# uv makes the environment fast; it is never put around Ray (Ray would rebuild it in every worker).
$(VENV)/.ready: requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-build-isolation --no-deps -e .
	@touch $@

demo: setup ## explain, verify and report on the bundled data, offline
	@$(BIN)/camatlas demo $(DEMO)

# Files go to processes whole, in this order; one that takes minutes would keep all waiting at the end.
LONGEST_FIRST := tests/cluster tests/e2e tests/planted tests/faults

test: setup ## run the tests (about a quarter of an hour on 2 cores)
	@$(BIN)/python -m pytest -q -m "not campaign" -n 2 --dist worksteal tests/unit tests/oracle tests/security tests/browser
	@$(BIN)/python -m pytest -q -m "not campaign" -n 3 --dist loadfile --no-loadscope-reorder $(LONGEST_FIRST)

check: setup ## lint, formatting and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: setup ## speed as ratios: the methods against the plain model
	@$(BIN)/camatlas bench

campaign: setup ## long proofs, going on where they stopped: make campaign only=C1 minutes=60; writes TRUST.md
	@$(BIN)/python tests/trust/campaign.py $(if $(only),--only $(only)) $(if $(minutes),--minutes $(minutes))

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command 'make lock'

lock: ## resolve both lock files anew (no index address is written)
	@$(COMPILE) --extra dev --extra export --extra timm -o requirements.lock pyproject.toml
	@$(COMPILE) --extra cluster --extra timm --constraint requirements.lock -o deploy/requirements.lock pyproject.toml

clean: ## remove .venv, caches and the demo
	rm -rf $(VENV) $(DEMO) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
