# Every target installs what it needs. `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo

.DEFAULT_GOAL := help
.PHONY: help setup demo test check docs bench judge campaign dist wheel image lowest lock clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready ## create .venv with the locked dependencies and the camatlas command

# uv only installs packages. Do not start camatlas with `uv run`: Ray would rebuild the environment in every worker.
# editable_mode=compat writes a plain path, which type checkers follow.
$(VENV)/.ready: requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-build-isolation --no-deps -C editable_mode=compat -e .
	@touch $@

demo: setup ## explain, verify and audit the bundled data, offline
	@$(BIN)/camatlas demo $(DEMO)

# Each test file runs in one process. Files that take minutes start first, or one of them would run alone at the end.
LONGEST_FIRST := tests/cluster tests/e2e tests/planted tests/faults

test: setup ## run the tests (about 15 minutes on 2 cores)
	@$(BIN)/python -m pytest -q -m "not campaign and not docs" -n 3 --durations=25 --dist worksteal tests/unit tests/docs tests/models tests/layouts tests/oracle tests/device tests/security tests/browser
	@$(BIN)/python -m pytest -q -m "not campaign and not docs" -n 3 --durations=25 --dist loadfile --no-loadscope-reorder $(LONGEST_FIRST)

check: setup ## lint, formatting, types and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/mypy tests/users_script.py
	@$(BIN)/lint-imports --no-cache

docs: setup ## build the documentation in build/docs, run its notebooks and tutorial; any warning is an error
	@$(BIN)/sphinx-build -q -W --keep-going docs build/docs
	@$(BIN)/python -m pytest -q -m docs -n 2 tests/docs
	@echo "open build/docs/index.html"

bench: setup ## time the methods, relative to forward passes of the model
	@$(BIN)/camatlas bench

judge: setup ## judge the metrics again (25 minutes on 2 cores), and write the record, docs/metrics.md and the pictures
	@$(BIN)/camatlas judge judge --scenes 240 --seed 1
	@cp judge/judge.json pipeline/results/judged.json
	@$(BIN)/python -m pipeline.judge.table
	@$(BIN)/python -m pipeline.judge.pictures docs/pictures

campaign: setup ## continue the long proofs: make campaign only=C1 minutes=60; writes docs/TRUST.md
	@$(BIN)/python tests/trust/campaign.py $(if $(only),--only $(only)) $(if $(minutes),--minutes $(minutes))

dist: setup ## build the wheel and the source archive into dist/
	@rm -rf build dist
	@$(BIN)/uv build --quiet --no-build-isolation --python $(BIN)/python --out-dir dist
	@rm -rf build camatlas.egg-info  # pip would take the folder for an installed package

wheel: dist ## run the demo with the wheel, in an environment of its own
	@$(BIN)/python tests/release/try_wheel.py

image: setup ## run the steps of deploy/Dockerfile as far as they can without a container engine
	@$(BIN)/python tests/release/try_image.py

lowest: setup ## run the fast tests with the lowest declared versions of the dependencies
	@$(BIN)/python tests/release/try_lowest.py

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command 'make lock'

lock: ## resolve both lock files again (without index addresses)
	@$(COMPILE) --extra dev --extra export --extra timm --extra transformers --extra captum -o requirements.lock pyproject.toml
	@$(COMPILE) --extra cluster --extra timm --extra transformers --extra captum --extra simd --constraint requirements.lock -o deploy/requirements.lock pyproject.toml

clean: ## remove .venv, caches and the demo
	rm -rf $(VENV) $(DEMO) build dist docs/_deploy docs/reference/_generated *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
