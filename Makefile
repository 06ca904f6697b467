SHELL := /bin/bash
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11 python,$(shell $(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))
PY := .venv/bin/python
WORKERS ?= auto
SEEDS ?= 0,1,2
LOCK := uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --no-emit-index-url --no-annotate --no-header

.DEFAULT_GOAL := help
.PHONY: help setup train published test test-all test-hard test-mutants test-slurm lint format types demo bench constraints wheel clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/\1|\2/' | column -t -s '|'

setup: .venv/.ready ## virtual environment in .venv with the pinned dependencies and the package

.venv/.ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer found; install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; exit 1; }
	@echo "installing the pinned packages into .venv; a few minutes without further output ..."
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet -c constraints.txt -e '.[dev,export,audit,demo,imagenet,sweep,mlflow,wandb]'
	@touch $@

train: setup ## train the published V4 on FER2013 where it is found, else on synthetic faces
	$(PY) -m emotion.train $(if $(findstring resume=,$(ARGS)),,model=v4_attention) $(ARGS)

published: setup ## rerun every published experiment with SEEDS=0,1,2; takes long without an accelerator
	$(PY) -m emotion.train -m 'experiment=glob(*,exclude=[compact_distilled,cpu_best_votes,distill,fast_distilled,fast_robust,ferplus_distilled,ferplus_net,ferplus_small,first_run,synthetic_faces,resnet18_drawn])' seed=$(SEEDS) $(ARGS)

test: setup ## all tests; those on FER2013 run where EMOTION_DATA holds it
	$(PY) -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

test-all: setup ## all tests with every parametrization
	$(PY) -m pytest -n $(WORKERS) --dist worksteal -m "not slurm and not hard" $(ARGS)

test-hard: setup ## the guarantees of tests/README.md, and all other tests that take minutes
	@rm -f outputs/promises.json
	@status=0; \
	$(PY) -m pytest -m alone --counts=outputs/promises.json $(ARGS) || status=$$?; \
	$(PY) -m pytest -n $(WORKERS) --dist worksteal -m '(hard or promise) and not alone' --counts=outputs/promises.json $(ARGS) || status=$$?; \
	exit $$status

test-mutants: setup ## plant faults, one at a time, and count how many the tests notice; ARGS='--sample 20 MODULE ...'
	$(PY) -m tests.mutants $(ARGS)

test-slurm: setup ## single runs, sweeps and requeued jobs on a real Slurm of one node (root, Debian's slurm-wlm and munge)
	$(PY) -m pytest -n $(WORKERS) -m slurm tests/slurm $(ARGS)

lint: setup ## ruff and the direction of imports, without changing anything
	$(PY) -m ruff check . && $(PY) -m ruff format --check . && .venv/bin/lint-imports

format: setup ## ruff, with automatic fixes
	$(PY) -m ruff check --fix . && $(PY) -m ruff format .

types: setup ## mypy, strict
	$(PY) -m mypy

demo: setup ## a web page for images and the camera, on http://127.0.0.1:8000
	$(PY) -m emotion.demo $(ARGS)

bench: setup ## measure training, latency, reading and start-up against common practice
	$(PY) -m emotion.bench 'models=[fast_cnn,baseline_cnn,v4_attention]' seconds=2 rounds=2 $(ARGS)

constraints: setup ## resolve constraints.txt anew from pyproject.toml
	$(PY) -m $(LOCK) --upgrade -o constraints.txt

wheel: ## dist/*.whl, carrying conf/; needs only pip and, for what builds it, the package index
	$(PYTHON) -m pip wheel --quiet --no-deps -w dist .

clean: ## remove the environment, build products and caches; runs and data stay
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find emotion tests -name __pycache__ -prune -exec rm -rf {} +
