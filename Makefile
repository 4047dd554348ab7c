# The project's tasks. `make demo` and `make test` set up a virtual environment by themselves;
# `make TASK PREFIX=` uses the environment that is active (pixi's tasks do).
PYTHON ?= python3
VENV ?= .venv
PREFIX ?= $(VENV)/bin/
TORCH := 2.13.0
CPU_WHEELS := https://download.pytorch.org/whl/cpu

READY := $(if $(PREFIX),$(VENV)/.ready)
# On Linux the plain torch wheel brings gigabytes of CUDA packages; without a GPU take the CPU build.
HAS_GPU := $(shell command -v nvidia-smi)
ifeq ($(shell uname -s)$(HAS_GPU),Linux)
  TORCH_WHEEL := --no-deps --retries 1 --extra-index-url $(CPU_WHEELS) torch==$(TORCH)+cpu
else
  TORCH_WHEEL := torch==$(TORCH)
endif

PYTEST := OMP_NUM_THREADS=1 $(PREFIX)python -m pytest -n auto --dist worksteal
DEVICE := $(if $(HAS_GPU),--config gpu)

.PHONY: help setup demo test slow lint bench docs

help:
	@echo "make demo   simulate events, train the hit filter for a few minutes, evaluate it"
	@echo "make test   run the tests, but those that take longest"
	@echo "make slow   run these"
	@echo "make lint   check style, formatting and the direction of imports"
	@echo "make bench  time attention, encoders and the TrackML hot paths against their peers"
	@echo "make docs   build the documentation into site/"

setup: $(READY)

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet $(TORCH_WHEEL)
	$(VENV)/bin/python -m pip install --quiet -e '.[dev]'
	touch $@

demo: $(READY)
	$(PREFIX)hepattn trackml/hit_filter fit $(DEVICE)
	$(PREFIX)hepattn trackml/hit_filter test $(DEVICE)

test: $(READY)
	$(PYTEST) -m "not slow"

slow: $(READY)
	$(PYTEST) -m slow $(TESTS)

lint: $(READY)
	$(PREFIX)ruff check
	$(PREFIX)ruff format --check
	$(PREFIX)lint-imports

bench: $(READY)
	$(PREFIX)python benchmarks

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(PREFIX)mkdocs build --strict
