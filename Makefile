# make demo   install, then train, evaluate, lift and look, in minutes
# make test   install, then run the tests
# make wheel  build and test a wheel, as a release does for each Python
# Both make the environment .venv on their first run; VENV and PYTHON choose others.

PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
TORCH ?= torch>=2.11,<2.14
# A CUDA build of PyTorch brings its own Triton, and must keep it; a CPU build brings none.
TRITON ?= triton==3.6.0
BIN := $(VENV)/bin

.PHONY: demo test lint wheel clean

demo: $(VENV)/installed
	$(BIN)/ites demo --out $(DEMO)

test: $(VENV)/installed
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(VENV)/installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	find csrc -type f -print0 | xargs -0 $(BIN)/clang-format --dry-run -Werror
	$(BIN)/zizmor --offline --quiet .github

wheel:
	PYTHON=$(PYTHON) .ci/wheel

$(VENV)/installed: pyproject.toml setup.py $(wildcard csrc/*.* csrc/*/*.*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)" "setuptools>=77" "pybind11>=2.13" ninja numpy
	$(BIN)/python -m pip install --quiet --no-build-isolation -e ".[all,dev]"
	$(BIN)/python -c "import triton" 2>/dev/null || $(BIN)/python -m pip install --quiet "$(TRITON)"
	touch $@

clean:
	rm -rf $(VENV) build dist demo *.egg-info ites/*.so
