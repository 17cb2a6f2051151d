PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The other end of the range of transformers that pyproject.toml allows; constraints.txt pins the first.
NEWEST := transformers==5.24.0

# The fast tests in two processes of one thread each; a file stays whole, for its tests share models.
TOGETHER := --numprocesses 2 --dist loadfile

.PHONY: setup style check test newest slow cuda browser test-browser page-pictures docs demo

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

style: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

demo: setup
	$(BIN)/python examples/demo.py

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not browser" $(TOGETHER)

newest: setup
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target .newest "$(NEWEST)"
	PYTHONPATH=.newest OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not browser" $(TOGETHER)

slow: setup
	$(BIN)/python -m pytest -m "slow and not browser"

cuda: setup
	$(BIN)/python -m pytest -m cuda

# Debian's Chromium, where apt is there and may install; elsewhere the tests say why they are skipped.
browser:
	command -v chromium > /dev/null || ! command -v apt-get > /dev/null || [ "$$(id -u)" != 0 ] \
		|| { apt-get update --quiet=2 && apt-get install --yes --quiet=2 --no-install-recommends chromium; } \
		|| echo "chromium could not be installed"

# The pictures of the page in docs/.
page-pictures: setup browser
	OMP_NUM_THREADS=1 $(BIN)/python tests/page_pictures.py docs/images

test-browser: setup browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser -rs

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
