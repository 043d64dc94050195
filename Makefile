# Every target does its own set-up: a virtual environment in .venv with the pinned versions of
# constraints.txt. `make demo` and `make test` are the two to know.

PYTHON ?= python3
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SHAPES := --jaxtyping-packages=medkit,_shape_check.checker
COVERAGE := --cov --cov-report=
export OMP_NUM_THREADS ?= 2
test: export OMP_NUM_THREADS = 1

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types imports spelling api docs bench clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

.venv/.pip:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("medkit needs Python 3.11 or newer; this is %s. Run: make PYTHON=python3.11 ..." % sys.version.split()[0])'
	@echo "Setting up .venv"
	@$(PYTHON) -m venv .venv
	@$(PIP_INSTALL) --upgrade pip
	@touch $@

.venv/.demo: .venv/.pip pyproject.toml constraints.txt
	@echo "Installing medkit with what the examples need (a few minutes, once)"
	@$(PIP_INSTALL) --constraint constraints.txt --editable ".[examples,fast]"
	@touch $@

.venv/.dev: .venv/.pip pyproject.toml constraints.txt
	@echo "Installing medkit with its checks and the libraries it is compared with (a few minutes, once)"
	@$(PIP_INSTALL) --constraint constraints.txt --editable ".[dev]"
	@touch $@ .venv/.demo

demo: .venv/.demo ## train SegFormer3D on a brain MRI, draw what it predicts (out/); ARGS=--resume goes on after Ctrl-C
	$(BIN)/python examples/segment_brain_mri.py $(ARGS)

test: .venv/.dev ## run the tests, with shapes checked at run time, and measure their coverage
	rm -f .coverage
	$(BIN)/python -m pytest -n 2 --dist worksteal $(SHAPES) $(COVERAGE) --ignore=tests/compile $(ARGS)
	$(BIN)/python -m pytest $(COVERAGE) --cov-append tests/compile
	$(BIN)/python -m coverage report

check: lint types imports spelling test docs ## everything that CI runs

lint: .venv/.dev ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.dev ## basedpyright, strict, and 100 % of the public types
	$(BIN)/basedpyright
	@# basedpyright looks for the package to verify on PYTHONPATH alone
	@PYTHONPATH=src:$$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])') \
		$(BIN)/basedpyright --verifytypes medkit --ignoreexternal > .venv/types.log || true
	@grep -E ' error: |completeness score' .venv/types.log
	@grep -q 'completeness score: 100%' .venv/types.log

imports: .venv/.dev ## import-linter: layers, cycles, optional packages
	$(BIN)/lint-imports

spelling: .venv/.dev ## codespell
	$(BIN)/codespell

api: .venv/.dev ## write tests/api/public_api.txt anew after a change of the public API
	$(BIN)/python tests/api/surface.py > tests/api/public_api.txt.new
	mv tests/api/public_api.txt.new tests/api/public_api.txt

docs: .venv/.dev ## build the documentation into docs/_build/html; warnings are errors
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -q -b html docs docs/_build/html

bench: .venv/.dev ## run every benchmark beside its peers and write docs/compare.md (over an hour)
	$(BIN)/python benchmarks/compare.py $(ARGS)

clean: ## remove the environment and everything built
	rm -rf .venv build dist docs/_build docs/gallery docs/sg_execution_times.rst htmlcov .coverage
