# Each target sets up what it needs in .venv; `make setup` does only that.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FUZZ_SECONDS := 30
# Most of a test of processes is waiting for them.
WORKERS := 2
# `make test-stores THANOS=1` builds Thanos too, for minutes.
THANOS :=
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.bench-installed
DOCS_STAMP := $(VENV)/.docs-installed
# torch compiled anew at each start of a rank takes seconds: machines that forbid compiled files do it here all the same.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test test-faults test-gpu test-matrix test-stack test-stores test-pure test-lowest test-pythons test-integrations test-slurm test-kubernetes sdk-requests mutants fuzz sanitize check render docs bench stack clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt setup.py $(wildcard otel_train/native/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "otel_train needs Python 3.11 or newer; give one: make setup PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { echo "python3 -m venv failed; on Debian: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[all]'
	@touch $@

$(BENCH_STAMP): $(STAMP)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[all,bench]'
	@touch $@

# Only who builds the site needs it: `make demo` and `make test` install without.
$(DOCS_STAMP): $(STAMP)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[all,docs]'
	@touch $@

demo: $(STAMP)
	$(BIN)/otel-train demo

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

test-faults: $(STAMP)
	$(BIN)/python -m tests.faults
	$(BIN)/python -m pytest -m faults

test-gpu: $(STAMP)
	$(BIN)/python -m pytest -m gpu

test-matrix: $(STAMP)
	$(BIN)/python -m pytest -m matrix

test-stack: $(STAMP)
	$(BIN)/python -m tests.support.stack_images
	$(BIN)/python -m pytest -m stack

test-stores: $(STAMP)
	THANOS=$(THANOS) $(BIN)/python -m tests.stores
	THANOS=$(THANOS) $(BIN)/python -m pytest -m stores tests/stores

test-pure: $(STAMP)
	$(BIN)/python -m tools.environments pure

test-lowest: $(STAMP)
	$(BIN)/python -m tools.environments lowest

test-pythons: $(STAMP)
	$(BIN)/python -m tools.environments pythons

test-integrations: $(STAMP)
	$(BIN)/python -m tools.environments integrations

test-slurm: $(STAMP)
	$(BIN)/python -m pytest -m slurm

test-kubernetes: $(STAMP)
	$(BIN)/python -m tests.kubernetes
	$(BIN)/python -m pytest -m kubernetes

# What Java's and Rust's SDKs and telemetrygen send, anew: needs mvn, cargo and go, and minutes.
sdk-requests: $(STAMP)
	$(BIN)/python -m tests.sdks.record_requests

mutants: $(STAMP)
	$(BIN)/python -m tests.mutants $(if $(QUARTER),--quarter $(QUARTER))

fuzz: $(STAMP)
	$(BIN)/python -m fuzz --seconds $(FUZZ_SECONDS)

sanitize: $(STAMP)
	$(BIN)/python -m tools.sanitize

check: $(STAMP) docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_imports.py tests/test_house.py
	$(BIN)/otel-train render --check

render: $(STAMP)
	$(BIN)/otel-train render

docs: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(BENCH_STAMP)
	$(BIN)/python -m benchmarks

stack:
	@tools/stack-up.sh

clean:
	rm -rf $(VENV) $(VENV)-* .stack build dist site otel-train-out *.egg-info
