# Everything runs from .venv, which `make setup` fills with exactly the packages of requirements/$(PLATFORM).txt.
PLATFORM ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
PYTHON ?= python3.11
# Package caches are in the cache folder, like everything that runs write outside this folder.
export AUTODIDACT_CACHE ?= $(HOME)/.cache/autodidact
export PIP_CACHE_DIR ?= $(AUTODIDACT_CACHE)/pip
export UV_CACHE_DIR ?= $(AUTODIDACT_CACHE)/uv
export PIP_DISABLE_PIP_VERSION_CHECK = 1

DONE := .venv/done-$(PLATFORM)
PACKAGES := deployments flows tasks models data

.DEFAULT_GOAL := help
.PHONY: help setup demo up down test test-fast test-nightly browser check docs bench bases pairs deployments lock format clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

setup: $(DONE)  ## Make .venv, exactly as locked

$(DONE): requirements/$(PLATFORM).txt pyproject.toml scripts/setup.sh
	@PYTHON="$(PYTHON)" PLATFORM="$(PLATFORM)" scripts/setup.sh
	@scripts/provide.sh bwrap \
	    'bubblewrap is missing and cannot be installed here: the reward "program" cannot be used.' bubblewrap
	@scripts/provide.sh libseccomp.so.2 \
	    'libseccomp is missing and cannot be installed here: programs run without a system-call filter.' \
	    libseccomp2
	@touch $@

demo: setup  ## Two iterations of ReST-EM on a tiny model, with a report
	.venv/bin/autodidact rest-em --config configs/demo.yaml

up: setup  ## Start Prefect, MLflow and a worker on this machine
	.venv/bin/autodidact up

down: setup  ## Stop what `make up` started
	.venv/bin/autodidact down

test: browser  ## The suite that CI runs, with real vLLM and DeepSpeed
	.venv/bin/pytest --numprocesses 3 --no-loadscope-reorder

test-fast: setup  ## What is done to rows and settings, in seconds
	.venv/bin/pytest --numprocesses 2 -m "not nightly and not slow" tests/unit/data tests/unit/flows

test-nightly: browser  ## What takes long, or repeats what a shorter test holds
	.venv/bin/pytest --numprocesses 3 --no-loadscope-reorder -m nightly

browser: setup
	@scripts/provide.sh 'chromium|chromium-browser' \
	    'chromium is missing and cannot be installed here: pages are not tested in a browser.' \
	    chromium fonts-dejavu-core

check: setup  ## Lint, formatting, types, import contracts
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy $(PACKAGES)
	.venv/bin/lint-imports --no-cache

docs: setup  ## Build the pages into build/docs; every warning is an error
	NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict --quiet
	@echo build/docs/index.html

bench: setup  ## Measure speed, memory and verdicts, side by side
	.venv/bin/python -m benchmarks

bases: setup  ## Retrain the demos' bases, which come with the package
	.venv/bin/python scripts/bases.py

pairs: setup  ## Make the data of the RLHF, Self-Rewarding and RLAIF demos again
	.venv/bin/python -m scripts.pairs
	.venv/bin/python -m scripts.judgments
	.venv/bin/python -m scripts.labels

deployments: setup  ## Make prefect.yaml again from flows/ and configs/
	.venv/bin/python -m deployments.generate

format: setup  ## Format the code
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

lock: setup  ## Make requirements/*.txt again from pyproject.toml
	scripts/lock.sh

clean:  ## Remove .venv and tool caches; runs/ and the cache folder stay
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
