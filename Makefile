# Every target does its own set-up; on a fresh Debian or Ubuntu with root, or with Docker, nothing else is needed.
# STOKER_RUNTIME=docker|kindless|auto chooses how Kubernetes runs (auto: Docker where its daemon answers).
# STOKER_CACHE (default ~/.cache/stoker) keeps what is dear to build; `git clean` does not touch it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/.stoker/bin:$(PATH)
export STOKER_CACHE ?= $(HOME)/.cache/stoker
PYTEST := .venv/bin/python -m pytest

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: demo
demo: setup ## from nothing to a streamed, authenticated chat answer on a real cluster
	@.venv/bin/python hack/demo up

.PHONY: demo-down
demo-down: setup ## remove the demo's cluster and everything it started
	@.venv/bin/python hack/demo down

.PHONY: test
test: setup ## everything that must pass
	@hack/test

.PHONY: test-all
test-all: setup ## the long suites, too
	@hack/test --all

.PHONY: check
check: setup ## a minute or two: format, lint, types, import contracts, unit and golden tests
	@ruff format --check --quiet . >/dev/null || { echo "run: .venv/bin/ruff format ." >&2; exit 1; }
	@ruff check --quiet .
	@mypy
	@MYPYPATH=tests/kindless:hack/images mypy --strict tests/kindless/kindless hack/images/imagebuild
	@lint-imports --no-logo | tail -n 1
	@$(PYTEST) -q -n 2 tests/unit tests/golden --cov --cov-report=term:skip-covered

.PHONY: generate
generate: setup tools ## write CRDs, chart copies, RBAC, deploy/ and the reference docs from the code
	@.venv/bin/python -m stoker.codegen

.PHONY: verify
verify: setup tools ## fail where generated files differ from what the code says
	@.venv/bin/python -m stoker.codegen --check

.PHONY: images
images: setup tools ## build the images; make images push REGISTRY=registry.example.com/team publishes Stoker's own
	@hack/images/build

.PHONY: push
push: images ## see images
	@test -n "$(REGISTRY)" || { echo "say where to: make images push REGISTRY=registry.example.com/team" >&2; exit 1; }
	@hack/images/build --push "$(REGISTRY)"

.PHONY: bench
bench: setup ## the gateway beside bare Envoy, sglang-router and LiteLLM; writes docs/benchmarks/gateway.md
	@uv pip install --quiet --python .venv/bin/python -r requirements-sim.txt
	@.venv/bin/python tests/bench/gateway/run.py

.PHONY: soak
soak: setup ## half an hour of load on the gateway: its memory must not grow; writes docs/benchmarks/soak.md
	@uv pip install --quiet --python .venv/bin/python -r requirements-sim.txt
	@.venv/bin/python tests/bench/gateway/soak.py

.PHONY: bench-scale
bench-scale: setup tools ## 1,000 ModelDeployments on a control plane with KWOK nodes; writes docs/benchmarks/operator.md
	@.venv/bin/python tests/bench/scale.py

.PHONY: bench-agent
bench-agent: setup ## the agent's memory and CPU beside a real llama.cpp; writes docs/benchmarks/agent.md
	@.venv/bin/python tests/bench/agent.py

.PHONY: bench-autoscaling
bench-autoscaling: setup tools ## 300 models that scale themselves; writes docs/benchmarks/autoscaling-loop.md
	@.venv/bin/python tests/bench/autoscaling.py

.PHONY: sim
sim: setup ## the autoscaler and its peers on request traces; writes docs/benchmarks/autoscaling.md
	@uv pip install --quiet --python .venv/bin/python -r requirements-sim.txt
	@.venv/bin/python tests/sim/run.py

.PHONY: fuzz
fuzz: setup ## ten minutes of spoiled model headers; finds go to tests/fuzz/corpus
	@.venv/bin/python tests/fuzz/headers.py --seconds 600 --keep

.PHONY: clean
clean: ## remove clusters, the virtual environment and what tests left; the cache stays
	@if [ -x .stoker/bin/kind ]; then .stoker/bin/kind get clusters 2>/dev/null | grep '^stoker-' | xargs -r -n 1 .stoker/bin/kind delete cluster --name; fi
	@rm -rf .venv .stoker .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage dist .import_linter_cache
	@find operator tests -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: setup
setup:
	@hack/setup

.PHONY: tools
tools: setup
	@hack/tools ensure
