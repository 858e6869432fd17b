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

PIP = $(BIN)/python -m pip --quiet --disable-pip-version-check

# Without a display there may be no libGL: OpenCV's headless build does without.
define with_opencv
@$(BIN)/python -c 'import cv2' 2>/dev/null || { \
  echo 'no libGL here: installing the headless build of OpenCV'; \
  $(PIP) uninstall --yes opencv-python opencv-python-headless && \
  $(PIP) install 'opencv-python-headless>=4.10,<5'; }
endef

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --editable .
	$(with_opencv)
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PIP) install $(TORCH) --editable '.[train,test,lint]'
	$(with_opencv)
	@touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
