# Everything a person needs: `make serve` and `make test` work on a fresh checkout with Python 3.11
# or 3.12 and nothing else. `make` alone lists the targets.

VENV ?= .venv
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null \
	&& echo $$p && break; done)
# The index to get torch alone from, for another build of it (PyTorch's site lists its indexes, one
# of them without CUDA); empty: where pip finds everything else.
TORCH_INDEX ?=
# Passed on by `make serve` to orrery, by `make test` to pytest, by `make bench-...` to the program.
ARGS ?=

BIN := $(VENV)/bin
# Where vLLM's CPU build lives or is to be made.
PEERS ?= .venv-peers
RESULTS := benchmarks/results
BENCH = exec $(BIN)/python -m benchmarks
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := $(shell sed -n 's/^ *"\(torch==[^"]*\)",/\1/p' pyproject.toml)
# Named after the pinned version, so that another one is installed when the pin moves.
TORCH_STAMP := $(VENV)/.stamp-$(subst ==,-,$(TORCH))
PACKAGES := kimi_k2 wire experts_service router_service gateway cluster monitoring
PROTOC = $(BIN)/python -m grpc_tools.protoc -I wire/protos orrery.proto

.DEFAULT_GOAL := help
.PHONY: help serve test chaos check format protos protos-check dashboards k8s-check clean calibrate \
	profile bench-peers bench-serving bench-dispatch bench-replay bench-placement bench-layers \
	bench-load bench-soak bench-failover bench-changes bench-planner bench-balance

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables: VENV=$(VENV) PYTHON=$(PYTHON) TORCH_INDEX=$(TORCH_INDEX) ARGS=$(ARGS)"

serve: $(VENV)/.stamp-run ## install what is needed and serve nano-K2 at http://127.0.0.1:8000
	@exec $(BIN)/orrery serve $(ARGS)

test: $(VENV)/.stamp-dev ## install what is needed and run every test
	@exec $(BIN)/python -m pytest $(ARGS)

chaos: $(VENV)/.stamp-dev ## the full form of the chaos suite: half an hour of kills, hangs and lost nodes
	@exec $(BIN)/python -m pytest tests/chaos --chaos full -s $(ARGS)

check: $(VENV)/.stamp-dev protos-check ## lint, format, types, imports, generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.stamp-dev ## rewrite the code in the one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: $(VENV)/.stamp-dev ## make wire/generated anew from wire/protos
	$(PROTOC) --python_out=wire/generated --pyi_out=wire/generated

protos-check: $(VENV)/.stamp-dev
	@made=$$(mktemp -d) && trap 'rm -rf "$$made"' EXIT \
	&& $(PROTOC) --python_out="$$made" --pyi_out="$$made" \
	&& for file in "$$made"/*; do cmp -s "$$file" "wire/generated/$${file##*/}" \
	|| { echo "wire/generated/$${file##*/} is out of date: make protos"; exit 1; }; done

dashboards: $(VENV)/.stamp-dev ## make dashboards' JSON and the PrometheusRule anew
	$(BIN)/python -m monitoring.dashboards
	$(BIN)/python -m monitoring.kubernetes > k8s/base/prometheusrule.yaml

k8s-check: $(VENV)/.stamp-dev ## render the manifests, hold them against schemas and code, start the pods
	@exec $(BIN)/python -m pytest tests/unit/k8s tests/e2e/test_pods.py $(ARGS)

bench-peers: $(PEERS)/.stamp ## make the virtual environment of vLLM's CPU build, to compare with

bench-serving: $(VENV)/.stamp-bench $(PEERS)/.stamp ## compare with transformers and vLLM
	@$(BENCH).bench_serving --peers $(PEERS) \
	--json $(RESULTS)/serving.json --plot $(RESULTS)/serving.png $(ARGS)

bench-dispatch: $(VENV)/.stamp-bench ## dispatch and combine against a bare echo
	@$(BENCH).bench_dispatch --out $(RESULTS)/dispatch.json --plot $(RESULTS)/dispatch.png \
	$(ARGS)

bench-replay bench-placement bench-layers bench-load bench-soak bench-failover: bench-%: $(VENV)/.stamp-bench
	@$(BENCH).bench_$* --json $(RESULTS)/$*.json --plot $(RESULTS)/$*.png $(ARGS)

bench-replay: ## real arrivals at several loads
bench-placement: ## the planner's predictions against measurements
bench-layers: ## where a step's time goes
bench-load: ## checkpoint to ready against reading it
bench-soak: ## half an hour of random requests and aborts
bench-failover: ## tokens/s and gaps around a killed worker, with and without replicas

bench-changes: $(VENV)/.stamp-bench ## gaps between tokens while workers come, go and start anew
	@$(BENCH).bench_changes --json $(RESULTS)/changes.json $(ARGS)

bench-planner: $(VENV)/.stamp-bench ## processor time of a plan for 60 layers, 384 experts, 128 workers
	@$(BENCH).bench_planner --json $(RESULTS)/planner.json $(ARGS)

bench-balance: $(VENV)/.stamp-bench ## how even the workers' load is before and after a live rebalance
	@$(BENCH).bench_balance --json $(RESULTS)/balance.json $(ARGS)

calibrate: $(VENV)/.stamp-bench ## print the planner's constants as measured on this machine
	@$(BENCH).calibrate $(ARGS)

profile: $(VENV)/.stamp-bench ## flame graphs of router and workers under load
	@$(BENCH).profile --out $(RESULTS)/profile $(ARGS)

clean: ## remove caches and build output, keep the virtual environment
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find $(PACKAGES) tests benchmarks models -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.stamp-venv:
	@test -n "$(PYTHON)" || { echo "Orrery needs Python 3.11 or 3.12: install one," \
	"or name it with make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "python -m venv failed; on Debian and Ubuntu" \
	"install the package python3-venv"; exit 1; }
	@touch $@

# Its media libraries are of no use here; one of them does not load beside a torch for CPU alone.
$(PEERS)/.stamp: benchmarks/peers/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip --disable-pip-version-check install \
	$(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)+cpu
	$(PEERS)/bin/python -m pip --disable-pip-version-check install -r $<
	$(PEERS)/bin/python -m pip uninstall --yes torchvision torchaudio torchcodec
	@touch $@

# torch by itself, before everything that depends on it: only its own index may differ, and a pinned
# torch in place keeps the others from choosing another build.
$(TORCH_STAMP): $(VENV)/.stamp-venv
	$(PIP) install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	@touch $@

$(VENV)/.stamp-run: $(TORCH_STAMP) pyproject.toml
	$(PIP) install --editable .
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-run pyproject.toml
	$(PIP) install --editable '.[dev]'
	@touch $@

$(VENV)/.stamp-bench: $(VENV)/.stamp-dev
	$(PIP) install --editable '.[bench,dev]'
	@touch $@
