# The doors of this repository; `make help` lists them.
# Everything is installed into .venv of this checkout, from the exact versions of constraints.txt.
# uv keeps what it downloads in the user's cache and links it, so a second checkout takes seconds.

.DEFAULT_GOAL := help
.PHONY: help run test test-gpu test-matrix lint format proto constraints vectors bench bench-exact study study-bits figure attacks fuzz soak clean cometbft

GENERATIONS ?= 40
DIR ?= chain
INPUTS ?= 1000000
KILLS ?= 100
MINUTES ?= 30
SEED ?= 1
# Tests of real nodes go one after the other, the other tests beside them.
WORKERS ?= 2
PRESET ?= digits
# A recipe reads these from its environment: a folder's name may hold spaces.
export GENERATIONS DIR
ifdef COMETBFT # a release of CometBFT to run everything beside: see pol_abci/node/binary.py
export POL_ABCI_COMETBFT_RELEASE := $(COMETBFT)
endif

UV_VERSION := 0.13.9
PYTHON_CANDIDATES := $(PYTHON) python3.13 python3.12 python3.11 python3
BIN := .venv/bin
TYPED := pol_abci tests $(wildcard benchmarks studies) examples
LINTED := $(TYPED) proto

# What is installed depends on these files, and an editable install on where the checkout lies.
DIGEST := $(shell { pwd; cat pyproject.toml constraints.txt; } | cksum | tr ' ' -)
USER_STAMP := .venv/installed-$(DIGEST)
DEV_STAMP := .venv/installed-dev-$(DIGEST)
RUN_STAMP := $(or $(wildcard $(DEV_STAMP)),$(USER_STAMP))

# Certificates as the machine has them, and the index that pip is told to use, for uv too.
export UV_SYSTEM_CERTS ?= true
export UV_HTTP_TIMEOUT ?= 300
PIP_INDEX = $(BIN)/python -m pip config list | sed -n "s/^[a-z:.]*\.index-url='\(.*\)'$$/\1/p" | tail -n 1

help: ## list what make can do here
	@echo "make run [GENERATIONS=40] [DIR=chain]   watch a chain train a network; go on where it was"
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/make \1|\2/p' Makefile \
		| awk -F '|' '$$1 != "make run" { printf "%-39s %s\n", $$1, $$2 }'

run: $(RUN_STAMP) cometbft ## watch a chain train a network
	@$(BIN)/python -m pol_abci.cli up --home "$$DIR" --generations "$$GENERATIONS" \
		|| test $$? -eq 130 # Ctrl-C is one of the two ways to end it

test: $(DEV_STAMP) lint cometbft ## lint, and run all tests; COMETBFT=v0.40.0 for that release
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder

test-gpu: $(DEV_STAMP) ## run the tests that need a CUDA device; they fail where there is none
	$(BIN)/python -m pytest -m gpu --require-gpu

test-matrix: $(DEV_STAMP) ## compute the golden walk under two versions of torch and many settings
	@index=$${UV_DEFAULT_INDEX:-$$($(PIP_INDEX))}; \
	if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi; \
	PYTHONPATH=. $(BIN)/python -m tests.golden.matrix

lint: $(DEV_STAMP) ## check style, types and import rules
	$(BIN)/python -m ruff check $(LINTED)
	$(BIN)/python -m ruff format --check $(LINTED)
	$(BIN)/python -m mypy $(TYPED)
	$(BIN)/lint-imports

format: $(DEV_STAMP) ## rewrite the sources in the project's style
	$(BIN)/python -m ruff check --fix --exit-zero --quiet $(LINTED)
	$(BIN)/python -m ruff format $(LINTED)

proto: $(DEV_STAMP) ## compile proto/ into the generated packages
	$(BIN)/python proto/generate.py

vectors: $(DEV_STAMP) ## make the test vectors of tests/vectors anew
	PYTHONPATH=. $(BIN)/python tests/vectors/make_vectors.py

constraints: $(DEV_STAMP) ## choose the newest versions of everything installed
	@{ echo "# Exact versions of everything that an install of pol-abci with its development tools brings. Regenerate: make constraints."; \
	  $(BIN)/uv pip compile --quiet --upgrade --no-header --no-annotate --no-emit-index-url \
	    --python-version 3.11 --extra dev pyproject.toml; } > .venv/constraints.txt
	@mv .venv/constraints.txt constraints.txt

bench: $(DEV_STAMP) cometbft ## measure, and write the table of docs/performance.md anew
	PYTHONPATH=. OMP_NUM_THREADS=1 $(BIN)/python benchmarks/table.py $(NAMES)

bench-exact: $(DEV_STAMP) ## measure exact ResNet18 beside native torch, and write a table of docs/exact.md anew
	PYTHONPATH=. $(BIN)/python benchmarks/exact_resnet.py --write

fuzz: $(DEV_STAMP) ## give INPUTS=1000000 mutated inputs to all that reads bytes; SEED=1
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --inputs $(INPUTS) --seed $(SEED)

soak: $(DEV_STAMP) cometbft ## put chains under every fault: NAMES="chain disk network" KILLS=100 MINUTES=30 SEED=1
	$(BIN)/python -m tests.soak $(NAMES) --kills $(KILLS) --minutes $(MINUTES) --seed $(SEED)

study: $(DEV_STAMP) ## learn in virtual time by other constants, and write docs/study.md anew
	PYTHONPATH=. OMP_NUM_THREADS=1 $(BIN)/python studies/learning.py

study-bits: $(DEV_STAMP) ## learn with ResNet18 by exact bits beside float32: DATA_DIR=FOLDER of CIFAR-10
	PYTHONPATH=. OMP_NUM_THREADS=1 $(BIN)/python studies/bits.py $(if $(DATA_DIR),--data-dir "$(DATA_DIR)")

figure: $(DEV_STAMP) cometbft ## grow a chain and draw Figure 1 into docs/figures: PRESET=digits GENERATIONS=40
	PYTHONPATH=. OMP_NUM_THREADS=1 $(BIN)/python studies/figure1.py $(PRESET) --generations $(GENERATIONS) $(if $(DATA_DIR),--data-dir "$(DATA_DIR)")

attacks: $(DEV_STAMP) ## attack the rules and the learning, and write docs/security.md anew
	PYTHONPATH=. OMP_NUM_THREADS=1 $(BIN)/python -m studies.attacks $(NAMES)

clean: ## remove .venv and what tools left behind; chains are kept
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find $(LINTED) -name __pycache__ -type d -prune -exec rm -rf {} +

cometbft: $(RUN_STAMP)
	@$(BIN)/python -m pol_abci.node.binary

# A Python of 3.11 or newer makes the environment; its pip brings uv, which installs all else.
$(BIN)/uv:
	@for python in $(PYTHON_CANDIDATES); do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			recent=$$python; \
			if "$$python" -c 'import ensurepip, venv' 2>/dev/null; then chosen=$$python; break; fi; \
		fi; \
	done; \
	if [ -z "$$chosen" ] && [ -n "$$recent" ]; then \
		echo "$$recent cannot make virtual environments; install its venv package" \
			"(Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; \
	elif [ -z "$$chosen" ]; then \
		echo "no Python 3.11 or newer here (tried: $(PYTHON_CANDIDATES));" \
			"install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	echo "Making .venv with $$("$$chosen" --version)."; \
	"$$chosen" -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(USER_STAMP): EXTRAS :=
$(DEV_STAMP): EXTRAS := [dev]
$(USER_STAMP) $(DEV_STAMP): | $(BIN)/uv
	@$(BIN)/python -c '' || { echo ".venv has lost its Python; run: make clean" >&2; exit 1; }
	@$(BIN)/python -c 'import importlib.util as u, sys; sys.exit(u.find_spec("torch") is None)' || { \
		echo "Installing PyTorch and the rest into .venv: the first time on a machine this is"; \
		echo "a download of 3 GB (5.6 GB on disk), gigabytes that later checkouts link from a cache."; }
	@index=$${UV_DEFAULT_INDEX:-$$($(PIP_INDEX))}; \
	if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi; \
	$(BIN)/uv pip install --python $(BIN)/python -c constraints.txt -b constraints.txt \
		-e '.$(EXTRAS)'
	@rm -f .venv/installed-*
	@touch $@
