# Every target installs what it needs into .venv (or .venv-edge) at the root.
PYTHON ?= python3
# Python 3.10, JetPack 6's, where there is one; else the same as for everything.
PYTHON_3_10 := python3.10 $(wildcard $(HOME)/.pyenv/versions/3.10.*/bin/python3.10)
EDGE_PYTHON ?= $(firstword $(shell for p in $(PYTHON_3_10) $(PYTHON); do "$$p" -c '' 2>/dev/null && echo "$$p"; done))
VENV := .venv
EDGE := .venv-edge
BIN := $(VENV)/bin
# Two workers, one thread each: the tests are many and small.
WORKERS ?= 2

# Bindings without TensorRT. There are wheels of all of them for Python 3.11, and for few others.
BINDINGS := tensorrt-bindings==8.6.1 tensorrt-cu12-bindings==10.3.0 tensorrt-cu12-bindings==10.13.3.9.post1 \
	tensorrt-cu12-bindings==10.14.1.48.post1 tensorrt-cu13-bindings==10.16.1.11 tensorrt-cu13-bindings==11.4.0.106

.PHONY: help demo test test-quick test-edge lint bench bench-gpu check-index docs clean

help:  ## Show the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/|/' | column -t -s'|'

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# The oldest core packages that are supported, and no torch: what an old Jetson may have.
$(EDGE)/.dependencies: pyproject.toml constraints-lowest.txt
	$(EDGE_PYTHON) -m venv --clear $(EDGE)
	$(EDGE)/bin/python -m pip install --quiet --constraint constraints-lowest.txt '.[report,detect]'
	touch $@

$(EDGE)/.installed: $(EDGE)/.dependencies $(shell find edgetl -name '*.py' -o -name '*.html' -o -name '*.js')
	$(EDGE)/bin/python -m pip install --quiet --no-deps --force-reinstall .
	touch $@

demo: $(VENV)/.installed  ## A whole study on real digits: table, verdict, report.
	$(BIN)/edgetl run configs/digits.yaml -o runs/digits

test: lint test-edge  ## All checks and tests.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --ignore=tests/edge

test-quick: $(VENV)/.installed  ## The quick ones of the unit tests, in under two minutes.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m 'not slow and not material' tests/unit

test-edge: $(VENV)/.installed $(EDGE)/.installed  ## The device side, in an environment without torch.
	EDGETL_EDGE_PYTHON=$(EDGE)/bin/python $(BIN)/python -m pytest tests/edge

lint: $(VENV)/.installed  ## Style, types, and the direction of imports.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/.installed  ## Benchmarks against the alternatives; results go to benchmarks/results.
	$(BIN)/python benchmarks/train_heads.py -o benchmarks/results
	$(BIN)/python benchmarks/main_job.py -o benchmarks/results
	$(BIN)/python benchmarks/fuse.py -o benchmarks/results
	$(BIN)/python benchmarks/cuts.py -o benchmarks/results
	$(BIN)/python benchmarks/detection.py -o benchmarks/results
	$(BIN)/python benchmarks/engines.py -o benchmarks/results
	$(BIN)/python benchmarks/precision.py $(if $(MODELOPT),--modelopt $(MODELOPT)) -o benchmarks/results
	$(BIN)/python benchmarks/scenarios.py -o benchmarks/results
	$(BIN)/python benchmarks/trust.py -o benchmarks/results
	$(BIN)/python benchmarks/overhead.py -o benchmarks/results
	$(BIN)/python benchmarks/estimate.py -o benchmarks/results

bench-gpu: $(VENV)/.installed  ## The device tests, engines and training on a GPU.
	$(BIN)/edgetl doctor
	$(BIN)/python -m pytest tests/device
	$(BIN)/python benchmarks/device.py -o benchmarks/results/gpu
	$(BIN)/python benchmarks/train_heads.py -o benchmarks/results/gpu

check-index: $(VENV)/.installed  ## What only the package index can tell: bindings of TensorRT, wheels for a Jetson.
	$(foreach wheel,$(BINDINGS),$(BIN)/python -m pip download --quiet --no-deps --only-binary :all: -d build/bindings '$(wheel)' &&) true
	EDGETL_INDEX=build/bindings $(BIN)/python -m pytest -m index

docs: $(VENV)/.installed  ## Write the command reference and the figures of the README anew.
	$(BIN)/python docs/generate_cli.py
	$(BIN)/python docs/generate_api.py
	$(BIN)/python docs/generate_figures.py

clean:
	rm -rf $(VENV) $(EDGE) runs build dist
