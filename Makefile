# Everything runs in a virtual environment of its own; `make example` needs only Python 3.10+.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# One release of torch, so that a test run is the same everywhere.
TORCH ?= torch==2.13.0

.PHONY: example test lint clean

example: $(VENV)/installed
	$(BIN)/kpipe annotate examples/group_photo.jpg --force --draw boxes,lines,points,index

test: $(VENV)/installed-test
	$(BIN)/python -m pytest

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@# Without a display there may be no libGL: OpenCV's headless build does without.
	@$(BIN)/python -c 'import cv2' 2>/dev/null || { \
	  echo 'no libGL here: installing the headless build of OpenCV'; \
	  $(BIN)/python -m pip uninstall --quiet --yes opencv-python && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check 'opencv-python-headless>=4.10,<5'; }
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '$(TORCH)' '.[train,test,lint]' --editable .
	@touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
