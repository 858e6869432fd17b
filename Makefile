# Everything runs in a virtual environment of its own; `make example` needs only Python 3.10+.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# The releases that are installed, so that a command does the same everywhere and next month.
# `make lock` renews them; empty takes the newest.
LOCK ?= requirements/lock.txt
# One release of torch; empty leaves out what trains. pip's arguments may say where to get it.
TORCH ?= torch==2.13.0

.PHONY: example check test fuzz test-latest test-lowest lint docs lock clean

example: $(VENV)/installed
	$(BIN)/kpipe annotate examples/group_photo.jpg --force --draw boxes,lines,points,index
	@echo "To call kpipe from anywhere in this shell: source $(abspath $(BIN))/activate"
	@echo "To keep it: ln -s $(abspath $(BIN))/kpipe ~/.local/bin/ (any folder that is on your PATH)"

PYTEST = $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

# Style, types and all tests but the slow ones.
check: lint
	$(PYTEST) -m 'not slow'

test: $(VENV)/installed-test
	$(PYTEST) --cov

# Hostile inputs of every kind, a minute each; findings go to tests/corpus. For an hour each:
# make fuzz KPIPE_FUZZ_SECONDS=3600. Repeat a run: make fuzz FUZZ='--seed 7 --kind pictures'.
KPIPE_FUZZ_SECONDS ?= 60
fuzz: $(VENV)/installed-test
	OMP_NUM_THREADS=1 KPIPE_FUZZ_WALL=60 $(BIN)/python -m tests.fuzz --seconds $(KPIPE_FUZZ_SECONDS) $(FUZZ)

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site, in site/. A link that leads nowhere, like any other warning, is an error.
docs: $(VENV)/installed-docs
	$(BIN)/python docs/floors.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo 'to read it: $(BIN)/python -m http.server -d site'

# With the newest releases that pyproject.toml allows.
test-latest:
	$(MAKE) test VENV=.venv-latest LOCK=

# With the lowest, which have no wheels for the newest Python.
test-lowest: PYTHON = python3.10
test-lowest: TORCH = torch==2.4.0
test-lowest:
	$(MAKE) test VENV=.venv-lowest LOCK=requirements/lowest.txt PYTHON=$(PYTHON) TORCH='$(TORCH)'

PIP = $(if $(LOCK),PIP_CONSTRAINT=$(LOCK) PIP_BUILD_CONSTRAINT=$(LOCK)) \
  $(BIN)/python -m pip --disable-pip-version-check

# Without a display there may be no libGL: OpenCV's headless build does without.
define with_opencv
@$(BIN)/python -c 'import cv2' 2>/dev/null || { \
  echo 'no libGL here: installing the headless build of OpenCV'; \
  $(PIP) uninstall --yes opencv-python opencv-python-headless && \
  $(PIP) install 'opencv-python-headless>=4.13,<5'; }
endef

$(VENV)/installed: pyproject.toml $(LOCK)
	@echo 'installing kpipe and what it needs in $(VENV): about 135 MB to download, a minute or two'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --editable .
	$(with_opencv)
	@touch $@

comma = ,
$(VENV)/installed-test: $(VENV)/installed
	@echo 'installing what the tests need, torch too, in $(VENV): a few minutes'
	$(PIP) install $(TORCH) --editable '.[$(if $(TORCH),train$(comma))test,lint,docs]'
	$(with_opencv)
	@touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(PIP) install --editable '.[docs]'
	@touch $@

# torch stands in TORCH, with what NVIDIA's libraries it pins itself.
LOCKED = $(BIN)/uv pip compile pyproject.toml - --universal --python-version 3.10 --upgrade \
  --quiet --no-annotate --no-header --extra train --extra heic --extra video --extra batch \
  --extra plot --extra test --extra lint --extra docs
WITHOUT_TORCH = grep -vE '^(torch|triton|nvidia-|cuda-)'
ALSO = printf '%s\n' 'editables>=0.3' 'opencv-python-headless>=4.13,<5'

lock: $(VENV)/installed
	$(PIP) install uv
	$(ALSO) 'torch==2.13.0' | $(LOCKED) --extra ray | $(WITHOUT_TORCH) > requirements/lock.txt
	$(ALSO) | $(LOCKED) --resolution lowest-direct | $(WITHOUT_TORCH) > requirements/lowest.txt

clean:
	rm -rf .venv* build dist site .mypy_cache .pytest_cache .ruff_cache .coverage
