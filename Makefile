# Everything a developer types. `make demo` and `make test` work from nothing but Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export CUDA_VISIBLE_DEVICES ?=
export PIP_INDEX_URL PIP_EXTRA_INDEX_URL
ifeq ($(PIP_INDEX_URL),)
unexport PIP_INDEX_URL
endif
ifeq ($(PIP_EXTRA_INDEX_URL),)
unexport PIP_EXTRA_INDEX_URL
endif
MODE ?= auto
# Of the images: docker/README.md.
export BASE_IMAGE COMPUTE ENGINE TORCH_INDEX_URL
SOURCES := lib services orchestrator tests bench examples docs docker helm

.PHONY: help setup demo test test-slow oldest-redis newcomer-test chaos closed-form families up down lint format proto proto-check bench load soak images image-test chart-test control-test cluster-tools cluster-test clean

help:  ## What there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

setup: $(VENV)/.installed  ## The environment in .venv

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Quatrain needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup  ## The example job from start to end: SFT, reward model, PPO
	$(BIN)/python examples/courteous-replies/demo.py

test: setup  ## The everyday suite, under 15 minutes on two cores
	$(BIN)/python -m pytest -m 'not slow' --durations=10

test-slow: setup  ## What takes longer than the everyday suite
	$(BIN)/python -m pytest -m slow --timeout=1800

oldest-redis: setup  ## The queue on the oldest Redis that is supported: Debian 12's 7.0, or REDIS=/path/of/redis-server
	.ci/oldest-redis $(REDIS)

newcomer-test:  ## make demo and make test in a bare Debian by a user who is not root; itself needs root and debootstrap
	.ci/newcomer

closed-form: setup  ## The closed-form tasks through the real services; SEEDS="1 2 3"
	$(BIN)/python examples/count-token/check.py --seeds $(or $(SEEDS),1)

up: setup  ## Starts the local stack; MODE=process|compose, by default compose where its images are
	$(BIN)/quatrain up --mode $(MODE)

down: setup  ## Ends the local stack, keeps its data
	$(BIN)/quatrain down

lint: setup  ## Style, types, import arrows, file lengths, words, protos
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/check_files.py
	$(BIN)/python .ci/check_words.py
	$(MAKE) --no-print-directory proto-check

format: setup  ## Formats the sources
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

proto: setup  ## Generates the stubs anew
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out=lib --pyi_out=lib --grpc_python_out=lib proto/quatrain/v1/*.proto

proto-check: setup  ## The committed stubs are those of the protos; every field is commented
	$(BIN)/python .ci/check_protos.py

chaos: setup  ## Faults into running jobs; SEED=n repeats one, RUNS, STACKS, CLASSES of a campaign
	$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(RUNS),--runs $(RUNS)) $(if $(STACKS),--stacks $(STACKS)) $(if $(CLASSES),--classes $(CLASSES))

families: setup  ## A job of every family of models through the local stack; writes the table of docs/models.md
	$(BIN)/python -m tests.families

bench: setup  ## Step time by phase, tokens per second, achieved FLOP/s; prints JSON
	$(BIN)/python -m bench

load: setup  ## The control plane under load: rollouts a second, replicas, watchers, many jobs; prints JSON
	$(BIN)/python -m tests.load

soak: setup  ## One job of 10,000 steps: nothing grows; STEPS=n
	$(BIN)/python -m tests.load soak $(if $(STEPS),--steps $(STEPS))

images: setup  ## Builds the container images; COMPUTE=cuda, BASE_IMAGE=debootstrap without a registry
	$(BIN)/python docker/build.py

image-test: setup  ## Builds the images, looks into them, runs compose.yaml to a finished job and kills its containers
	$(BIN)/python docker/build.py --sizes tests/images/sizes.json
	$(BIN)/python -m tests.cluster.programs images
	$(BIN)/python -m pytest tests/images --timeout=1800

chart-test: setup  ## The chart: lint, renderings of a matrix of values, policies, schemas, and the scripts of its pods
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.cluster.programs helm kubeconform
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/chart --timeout=600

control-test: setup  ## The chart on a real control plane with fake GPU nodes, KEDA, Kueue, LeaderWorkerSet; ONLY="release admission"
	$(BIN)/python -m tests.cluster.programs chart $(if $(ONLY),$(if $(filter autoscaling groups kueue,$(ONLY)),controllers),controllers)
	$(BIN)/python -m pytest $(if $(ONLY),$(ONLY:%=tests/cluster/control/test_%.py),tests/cluster/control) --timeout=600

cluster-tools: setup  ## Builds Kubernetes and its tools from their Go modules; GROUPS="chart node controllers"
	$(BIN)/python -m tests.cluster.programs $(GROUPS)

cluster-test: setup  ## Images, helm install, and jobs with pods that run and pods that die; needs root; ONLY="killed evicted"
	$(BIN)/python docker/build.py
	$(BIN)/python -m tests.cluster.programs node $(if $(ONLY),$(if $(filter autoscaled grouped,$(ONLY)),controllers),controllers)
	$(BIN)/python -m tests.cluster $(if $(ONLY),--only $(ONLY))

clean: setup  ## Ends the local stack and removes its data, volumes of containers too
	$(BIN)/quatrain down
	$(BIN)/python -c 'from quatrain.local import compose, home; compose.remove_data(home.state_folder())'
	rm -rf .quatrain
