# Two commands do everything on a fresh machine with Python 3.11 or newer: make demo, make test.
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin

# Processes that tests start read the bytecode of libraries that the first one has written, also where the shell forbids it
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-slow

demo: $(VENV)/.user
	$(BIN)/stac-cloudmask demo --out demo

# Everything that a change can break, in minutes
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

# Whole runs, a browser, a database, notebooks, examples, the docs' snippets, long fuzzing; .ci/servers installs what they need
test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m slow

$(VENV)/.user: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

# By uv, which finds versions that fit in seconds; by pip where only pip knows the way to a package index
$(VENV)/.dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[dev]' || $(BIN)/pip install --quiet --editable '.[dev]'
	touch $@
