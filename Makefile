# make run: the whole story in ten minutes    make test: the whole suite    make lint: ruff and mypy    make docs: the site    make gpu: a lent GPU
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A process for each core, none of which shares a file's tests, and so its fixtures, with another. Of one core: TEST_PROCESSES=0
TEST_PROCESSES ?= auto
INSTALLED := $(VENV)/.installed

.PHONY: run test lint docs gpu clean

run: $(INSTALLED)
	$(BIN)/python datasets/make_digits.py
	$(BIN)/python tools/quickstart.py

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --maxprocesses 8 --dist loadfile $(PYTEST_ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(INSTALLED)
	$(BIN)/python -m docs.generate
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The torch wheels are large: they are installed once, and again only when the requirements change.
$(INSTALLED): setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch torchvision
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# The first half hour on a lent GPU, the most valuable first; what is done is not run again. All of it: GPU_ARGS=
GPU_ARGS ?= --minutes 30
gpu: $(INSTALLED)
	$(BIN)/python tools/gpu.py $(GPU_ARGS)

clean:
	rm -rf $(VENV) build *.egg-info
