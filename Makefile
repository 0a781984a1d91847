# `make demo` and `make test` set up whatever is missing: they need CPython 3.11 with pip, and nothing else.
#
#   make demo [SMALL=1] [REPORT=FILE]   the whole way on real data, in under five minutes
#   make test [ARGS="-k mapping"]       all tests, three at a time (ARGS="-n 0 -s": one after the other)
#   make check                          formatting, lint, types (also of the tests), compose file: what CI checks
#   make torture [N=40] [SEED=0] [JSON=FILE]   kills, pauses, recreated topics: nothing lost, nothing invented?
#   make fuzz [N=100000] [SEED=0]       hostile messages, files, records, models: each accounted for, memory bounded?
#   make quality DATA=DIR [DATASET=NAME] [MODEL=NAME] [SEEDS=3] [WORLD=open] [TEST_LINKS=FILE] [JSON=FILE]   how good is the model?
#   make sentences DATA=DIR [DATASET=NAME] [K=20] [JSON=FILE]   is a sentence encoder worth its cost?
#   make speed [N=20000] [ONLY=engine] [K=7] [STORED=23000] [RATES="200 500 1000"] [SECONDS=15] [BOOTSTRAP=HOST:PORT]
#              [SEARCH=cells] [RUNS=1] [JSON=FILE] [PICTURE=FILE.svg]   how fast, beside the goals?
#   make peers DATA=DIR [PEER=NAME] [K=10] [CACHE=DIR] [LIMIT=900] [JSON=FILE]   other tools on the same records
#   make soak [SECONDS=1800] [N=2000] [JSON=FILE]   does memory stay, and the speed, over a long run?
#   make install [PYTHON=python3.11] [LOCK=]   the virtual environment that the others set up by themselves
#   make lock                           locks/, after a change of what pyproject.toml needs
#   make sssom                          the sssom package beside the project, which tests validate exports with
#   make clean                          removes the virtual environment and caches
#
# All of them take CPU=avx2: as on a processor that has AVX2 and nothing wider, as most have.
#
# pip takes its index and proxy from its own settings (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, pip.conf). On Linux,
# PyPI's torch brings gigabytes of CUDA; the build for CPUs alone comes with
#
#   make demo TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu

PYTHON ?= python3.11
VENV ?= .venv
TORCH_INDEX_URL ?=
LOCK ?= locks
SMALL ?=
REPORT ?=
ARGS ?=
N ?=
SEED ?=
JSON ?=
# Where the project is developed they lie beside the checkout.
DATA ?= $(wildcard ../shared/data)
DATASET ?=
MODEL ?=
SEEDS ?=
WORLD ?=
TEST_LINKS ?=
ONLY ?=
K ?=
RUNS ?=
PICTURE ?=
STORED ?=
RATES ?=
SEARCH ?=
SECONDS ?=
BOOTSTRAP ?=
PEER ?=
CACHE ?=
LIMIT ?=
CPU ?=

# Instructions are chosen by each library for itself, so each has to be told.
ifneq ($(CPU),)
include benchmarks/$(CPU).env
export $(shell cut -d= -f1 benchmarks/$(CPU).env)
endif

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Said at once, and not after minutes of installing.
WITH_DATA := $(filter quality sentences peers,$(MAKECMDGOALS))
ifneq ($(WITH_DATA),)
ifeq ($(DATA),)
$(error name the directory with the data sets: make $(firstword $(WITH_DATA)) DATA=DIRECTORY; docs/quality.md says what is in it)
endif
endif

.DEFAULT_GOAL := help
.PHONY: help demo test torture fuzz quality sentences speed peers soak check install lock sssom clean

help:
	@sed -n 's/^#   //p' Makefile

demo: $(STAMP)
	$(BIN)/sameas demo $(if $(SMALL),--small) $(if $(REPORT),--report "$(REPORT)")

test: $(STAMP)
	$(BIN)/python -m pytest -n 3 --maxschedchunk 1 $(ARGS)

torture: $(STAMP)
	$(BIN)/python -m benchmarks.torture $(if $(N),-n $(N)) $(if $(SEED),--seed $(SEED)) $(if $(JSON),--json "$(JSON)")

fuzz: $(STAMP)
	$(BIN)/python -m benchmarks.fuzz $(if $(N),-n $(N)) $(if $(SEED),--seed $(SEED))
	$(BIN)/python -m benchmarks.fuzz_inputs $(if $(N),-n $(N)) $(if $(SEED),--seed $(SEED))

quality: $(STAMP)
	$(BIN)/python -m benchmarks.quality --data "$(DATA)" $(addprefix --dataset ,$(DATASET)) \
		$(if $(MODEL),--model "$(MODEL)") $(if $(SEEDS),--seeds $(SEEDS)) \
		$(if $(WORLD),--world $(WORLD)) $(if $(TEST_LINKS),--test-links "$(TEST_LINKS)") $(if $(JSON),--json "$(JSON)")

sentences: $(STAMP)
	$(BIN)/python -m benchmarks.quality.sentences --data "$(DATA)" $(addprefix --dataset ,$(DATASET)) \
		$(if $(K),-k $(K)) $(if $(JSON),--json "$(JSON)")

speed: $(STAMP)
	$(BIN)/python -m benchmarks.speed $(if $(N),-n $(N)) $(addprefix --only ,$(ONLY)) $(if $(K),-k $(K)) \
		$(if $(STORED),--stored $(STORED)) $(if $(SEARCH),--search $(SEARCH)) $(if $(RATES),--rates $(RATES)) $(if $(SECONDS),--seconds $(SECONDS)) \
		$(if $(BOOTSTRAP),--bootstrap "$(BOOTSTRAP)") $(if $(RUNS),--runs $(RUNS)) $(if $(JSON),--json "$(JSON)") $(if $(PICTURE),--picture "$(PICTURE)")

peers: $(STAMP)
	$(BIN)/python -m benchmarks.peers --data "$(DATA)" $(addprefix --peer ,$(PEER)) $(if $(K),-k $(K)) \
		$(if $(CACHE),--cache "$(CACHE)") $(if $(LIMIT),--limit $(LIMIT)) $(if $(JSON),--json "$(JSON)")

soak: $(STAMP)
	$(BIN)/python -m benchmarks.soak $(if $(N),-n $(N)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(JSON),--json "$(JSON)")

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

install: $(STAMP)

# In an environment of its own: it needs Sphinx, SQLAlchemy, and a pytest plugin that changes what tests log.
sssom: $(VENV)-sssom/bin/sssom

$(VENV)-sssom/bin/sssom:
	$(PYTHON) -m venv $(VENV)-sssom
	$(VENV)-sssom/bin/pip install --quiet sssom==0.4.21

TORCH := "$$(sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)"
TORCH_INDEX := $(if $(TORCH_INDEX_URL),--index-url "$(TORCH_INDEX_URL)")
HASHED := --require-hashes --no-deps

# torch first: whatever else is installed is then satisfied by this build and does not pull in another. What stands in
# locks/ has to have its hashes: the build for CPUs alone where pip finds one, else PyPI's, whose CUDA libraries alone
# do not stand there (torch names their versions). LOCK= asks for no hashes: for another build, or another platform.
$(STAMP): pyproject.toml $(wildcard locks/*.txt)
	@command -v $(PYTHON) >/dev/null || { echo "make: CPython 3.11 is needed; say where: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifneq ($(LOCK),)
	$(BIN)/python -m pip install --quiet $(HASHED) $(TORCH_INDEX) -r $(LOCK)/torch-cpu.txt 2>/dev/null \
		|| $(BIN)/python -m pip install $(HASHED) $(TORCH_INDEX) -r $(LOCK)/torch.txt
	$(BIN)/python -m pip install $(HASHED) -r $(LOCK)/worker.txt -r $(LOCK)/develop.txt
	$(BIN)/python -m pip install $(TORCH)
	$(BIN)/python -m pip install --no-deps --no-build-isolation --editable .
else
	$(BIN)/python -m pip install $(TORCH_INDEX) $(TORCH)
	$(BIN)/python -m pip install --editable '.[dev]'
endif
	@touch $@

UV := $(VENV)-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-header --no-emit-package torch
NO_CUDA := awk '/^[a-z]/ {cuda = /^(cuda|nvidia|triton)/} !cuda'
# of the file given first, and with what it has left out: both are installed together
NOT_IN := awk 'NR == FNR {known[$$0]; next} /^[a-z]/ {skip = $$0 in known} !skip'

# Versions stay as they are where they can. Those of torch are written by hand.
lock:
	@test -x $(VENV)-lock/bin/uv || { $(PYTHON) -m venv $(VENV)-lock && $(VENV)-lock/bin/pip install --quiet uv==0.13.9; }
	$(UV) --extra files --output-file locks/worker.txt pyproject.toml > /dev/null
	$(NO_CUDA) locks/worker.txt > locks/new.txt && mv locks/new.txt locks/worker.txt
	$(UV) --extra dev --constraint locks/worker.txt --output-file locks/develop.txt pyproject.toml > /dev/null
	$(NO_CUDA) locks/develop.txt | $(NOT_IN) locks/worker.txt - > locks/new.txt && mv locks/new.txt locks/develop.txt

clean:
	rm -rf $(VENV) $(VENV)-sssom $(VENV)-lock .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
