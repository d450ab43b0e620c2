# The two commands: `make demo` and `make test`. Both build .venv first, on a fresh machine too.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
FAULTS ?= 500
SOAK ?= 100000
# A third of what is installed is ever imported: that is compiled when it is, once, and kept.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test lint tests golden golden-record golden-ab wheel bench-check bench bench-store bench-record help-record test-slow test-cluster test-faults soak fuzz clean

help:  ## Show what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Each stamp is renewed when the dependencies change, so that a second `make` installs nothing.
$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing vggfeat and torch into $(VENV); this takes a minute or two, once."
	$(PIP) --constraint constraints.txt --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing vggfeat, torch and what the tests need into $(VENV); this takes two minutes, once."
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	@touch $(VENV)/installed $@

demo: $(VENV)/installed  ## Features and a linear SVM on the shipped images, with a page
	@echo "Describing 300 images and testing a linear SVM on them takes about a minute on two cores."
	$(BIN)/vggfeat svm --dataset sample --features demo/features --report demo/sample.html --save demo/model
	@echo "On another processor a few images may fall otherwise: the figures differ in the last digits."
	@echo "Open demo/sample.html, or try: $(BIN)/vggfeat predict demo/model IMAGES"

test: $(VENV)/installed-dev  ## Everything that CI checks; two at a time, since tests also wait
	$(MAKE) --no-print-directory --jobs 2 lint tests golden wheel

lint: $(VENV)/installed-dev  ## Style, types and import layering
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

tests: $(VENV)/installed-dev  ## Tests and the examples in docstrings
	$(BIN)/python -m pytest -q -n 2 --dist worksteal --durations=25

# What takes the differences between processors away from the golden numbers.
CAPS := env OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_CBWR=COMPATIBLE

golden: $(VENV)/installed-dev  ## Numbers from end to end, against those kept in tests/golden
	$(CAPS) $(BIN)/python -m pytest -q -m golden -n 0 --durations=5 tests/golden

CASE ?=
REASON ?=
golden-record: $(VENV)/installed-dev  ## Record them anew: CASE="G11 G12" REASON="…"
	$(CAPS) PYTHONPATH=.:tests $(BIN)/python -m golden.record --case $(CASE) --reason "$(REASON)"

BASE ?=
golden-ab: $(VENV)/installed-dev  ## The same numbers of the guarded version (or BASE=ref), to 1e-6
	$(CAPS) PYTHONPATH=tests $(BIN)/python -m golden.ab $(BASE)

wheel: $(VENV)/installed-dev  ## Build wheel and sdist, and use the wheel outside the checkout
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python tests/check_wheel.py dist

bench-check: $(VENV)/installed-dev  ## Ratios of speed, none of which may fall by a quarter
	$(BIN)/python benchmarks/speed.py --check benchmarks/speed_check.json

bench-record: $(VENV)/installed-dev  ## Record them anew, after a change that is meant
	$(BIN)/python benchmarks/speed.py --record benchmarks/speed_check.json

bench: $(VENV)/installed-dev  ## Speed beside the machine's limit and other tools; an hour or two
	$(BIN)/python benchmarks/speed.py --json build/speed.json

bench-store: $(VENV)/installed-dev  ## A store of a million rows: time, memory, files; minutes
	$(BIN)/python benchmarks/large_store.py --rows 1000000 --folder .

help-record: $(VENV)/installed-dev  ## Record every --help anew, after a change that is meant
	PYTHONPATH=tests $(BIN)/python -m promises.record_help

test-slow: $(VENV)/installed-dev  ## Real images, many kills, ten thousand images
	$(BIN)/python -m pytest -q -m slow --timeout=0 --durations=0

test-cluster: $(VENV)/installed-dev  ## A Ray cluster of two hosts loses a worker and a host
	$(PIP) --constraint constraints.txt --editable '.[dev,ray]'
	$(BIN)/python -m pytest -q -m slow --timeout=0 tests/test_cluster_slow.py -s --durations=0

test-faults: $(VENV)/installed-dev  ## Broken FAULTS times in every way, and counted; half an hour
	VGGFEAT_FAULTS=$(FAULTS) $(BIN)/python -m pytest -q -s -m 'not soak' --timeout=0 tests/faults --durations=0

soak: $(VENV)/installed-dev  ## SOAK small images, 1 % bad: flat memory, flat handles, exact counts
	VGGFEAT_SOAK=$(SOAK) $(BIN)/python -m pytest -q -s -m soak --timeout=0 tests/faults

CASES ?=
fuzz: $(VENV)/installed-dev  ## Hostile files of every kind, counted; ten minutes, CASES=n for each
	PYTHONPATH=tests $(BIN)/python -m fuzz $(if $(CASES),--cases $(CASES))

clean:  ## Remove what was built
	rm -rf dist build demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
