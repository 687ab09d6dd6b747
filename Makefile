# Each target does its own set-up, once: a virtual environment with the pinned packages of constraints.txt.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PEERS  := .venv-peers
DATA   ?=
OUT    ?= demo-out

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-cluster unit check format bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Sentinode needs Python 3.11 or newer as '$(PYTHON)' (set PYTHON=...)."; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned packages into $(VENV) (once, some minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[train,serve,traces,slides,cluster,dev]'
	@touch $@

setup: $(READY)  ## create the virtual environment

demo: $(READY)  ## the whole way: ingest, train, evaluate, seal, serve (DATA=<folder> for your own patches)
	@$(BIN)/sentinode demo $(if $(DATA),--source "$(DATA)") --out "$(OUT)"

test: $(READY)  ## all tests
	@$(BIN)/python -m pytest

test-cluster: $(READY)  ## on a Kubernetes that you lend it: SENTINODE_CLUSTER=<context of your kubeconfig>
	@$(BIN)/python -m pytest -x tests/cluster

unit: $(READY)  ## the fast tests
	@$(BIN)/python -m pytest tests/unit tests/test_architecture.py

check: $(READY)  ## lint, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(READY)  ## put the code into its format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(patsubst benchmarks/bench_%.py,bench-%,$(wildcard benchmarks/bench_*.py))  ## all benchmarks

bench-data bench-serve: $(PEERS)/.ready

# Packages to compare with, whose pins differ from ours: beside ours, on top of the main environment's.
$(PEERS)/.ready: $(READY) benchmarks/peers.txt
	@test -x $(PEERS)/bin/python || $(BIN)/python -m venv $(PEERS)
	@main=$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))"); \
	  own=$$($(PEERS)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))"); \
	  echo "import site; site.addsitedir('$$main')" > "$$own/main.pth"
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers.txt \
	  || echo "Some packages to compare with cannot be installed: the benchmark skips them."
	@touch $@

bench-%: $(READY)
	@$(BIN)/python benchmarks/bench_$*.py

clean:  ## remove what the targets made, but not the virtual environments
	rm -rf demo-out benchmarks/out build .pytest_cache .mypy_cache .ruff_cache
