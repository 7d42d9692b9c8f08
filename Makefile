# `make demo` and `make test` need Python >= 3.11 and make, and set everything else up in .venv.
# The first call installs (minutes, mostly PyTorch); later calls start at once.

PYTHON ?= $(shell scripts/find_python)
VENV := .venv
PIP := $(VENV)/bin/python -m pip
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help demo test quick test-slow test-faults test-tflite bench-gpu fuzz migraphx check format reference clean

help:
	@echo "make demo       train, evaluate and predict on real images, from nothing"
	@echo "make test       every check and test"
	@echo "make quick      the tests that take no processes of their own, under two minutes"
	@echo "make test-slow  the tests on real data and long runs"
	@echo "make test-faults  kills, damage and failing disks by the hundred: half an hour"
	@echo "make test-tflite  exports to TensorFlow Lite, in an environment of their own: build/tflite, some gigabytes"
	@echo "make bench-gpu  what is measured on an accelerator, in parts of ten minutes; call it again to go on"
	@echo "make fuzz       a million damaged images through the decoder"
	@echo "make migraphx   AMD's graph compiler (on any CPU, without ROCm) and what the C++ example's tests need, into build/"
	@echo "make check      format, lint, types, layers, generated docs"
	@echo "make format     format the code and mend what the linter can"
	@echo "make reference  write docs/reference from the code"
	@echo "make clean      remove .venv and caches"

demo: $(VENV)/installed-train
	@scripts/demo

test: check $(VENV)/installed-dev
	pytest -n auto --dist loadfile -m "not slow"

quick: $(VENV)/installed-dev
	pytest -n auto --dist loadfile

test-slow: $(VENV)/installed-dev
	pytest -m slow

test-faults: $(VENV)/installed-dev
	python benchmarks/faults.py

# The converter holds packages back to versions that others here have left behind: among them an older anyio, at whose
# plugin pytest warns.
test-tflite: build/tflite/installed
	build/tflite/bin/python -m pytest -p no:anyio -m "not slow" tests/pipeline/test_tflite.py tests/unit/test_tflite_model.py

build/tflite/installed: pyproject.toml
	$(PYTHON) -m venv build/tflite
	build/tflite/bin/python -m pip install --compile -e '.[train,onnx,tflite-export]' pytest hypothesis
	@touch $@

bench-gpu: $(VENV)/installed-train
	benchmarks/gpu_all.sh

fuzz: $(VENV)/installed-dev
	scripts/fuzz_images --count 1000000 --folder build/fuzz

migraphx: build/migraphx build/onnxruntime

build/migraphx:
	$(PYTHON) scripts/install_migraphx --output $@

# By the Python whose ONNX Runtime is linked.
build/onnxruntime: | $(VENV)/installed-dev
	$(VENV)/bin/python scripts/install_migraphx --onnxruntime $@

check: $(VENV)/installed-dev
	scripts/check

format: $(VENV)/installed-dev
	ruff format
	ruff check --fix

reference: $(VENV)/installed-dev
	scripts/generate_reference

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# Stamps: installing is skipped while pyproject.toml is older than the last time it worked.
$(VENV)/installed-train: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --compile -e '.[train]'
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --compile -e '.[all,dev]'
	@touch $@ $(VENV)/installed-train

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer found; name one: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
