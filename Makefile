# Everything from a fresh clone with Python 3.11+, git and make. `make help` lists the targets.
SHELL := bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# One test process a core, at most four; tests/conftest.py keeps each to one thread.
PYTEST_ARGS ?= -n auto --maxprocesses 4 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install demo test check lint imports types doctests notebooks dependencies wheel bench clean

help:
	@echo "make demo          install, then roll out a learned world, grade it, write out/demo/report.html"
	@echo "make test          install, then run the tests"
	@echo "make check         all that is not a test: style, layers, types, doctests, dependencies, wheel"
	@echo "make notebooks     run the notebooks"
	@echo "make bench         run the benchmarks and print their figures"
	@echo "make clean         remove what was built; $(VENV) stays"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"worldsim needs Python 3.11 or newer; $(PYTHON) is {v.major}.{v.minor}. Try: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/worldsim demo --out out/demo

test: $(INSTALLED)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: lint imports types doctests dependencies wheel

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

imports: $(INSTALLED)
	$(BIN)/lint-imports

types: $(INSTALLED)
	$(BIN)/pyright

doctests: $(INSTALLED)
	$(BIN)/python -m pytest --doctest-modules worldsim envs eval

notebooks: $(INSTALLED)
	$(BIN)/python .ci/notebooks.py notebooks

dependencies: $(INSTALLED)
	$(BIN)/deptry .

wheel: $(INSTALLED)
	rm -rf build dist
	$(BIN)/python -m build --wheel --outdir dist . > /dev/null
	$(BIN)/python .ci/wheel.py dist
	rm -rf build

bench: $(INSTALLED)
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean:
	rm -rf build dist out *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find worldsim envs eval tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
