# Everything on a fresh machine: `make demo` runs the main job end to end, `make test` passes all tests.
# Each target makes .venv once and uses it again; it is made anew when a requirements file changes.

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
OUT ?= demo_output
PORT ?= 8000
HOST ?= 127.0.0.1
ARGS ?=
WORKERS ?= 2

.PHONY: help demo serve test test-slow lint venv clean

help:
	@echo "make demo                 the whole loop on generated images: server, segmentation, corrections, retraining, report"
	@echo "make serve STUDIES=DIR    start the MONAI Label server on a folder of images (HOST=$(HOST) PORT=$(PORT) ARGS='--conf labels a,b')"
	@echo "make test                 all tests but the slow ones (WORKERS=$(WORKERS) at a time, ARGS=tests/client for some)"
	@echo "make test-slow            the slow tests"
	@echo "make lint                 ruff and mypy"
	@echo "make clean                remove .venv and caches"

demo: $(STAMP)
	$(VENV)/bin/rep3d demo --out $(OUT) $(ARGS)

serve: $(STAMP)
	@test -n "$(STUDIES)" || { echo "make serve: expected a folder of images, got none. Say: make serve STUDIES=/path/to/images"; exit 2; }
	PATH="$(abspath $(VENV))/bin:$$PATH" monailabel start_server --app apps/rep3d_label --studies "$(STUDIES)" --host $(HOST) --port $(PORT) $(ARGS)

test: $(STAMP)
	@sh tests/system_packages.sh
	$(PY) -m pytest -m "not slow and not timed" -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)
	$(PY) -m pytest -m "timed and not slow" $(ARGS) || test $$? = 5  # 5: none of these was chosen

test-slow: $(STAMP)
	$(PY) -m pytest -m slow --timeout=3600 $(ARGS)

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

venv: $(STAMP)

$(STAMP): requirements.txt requirements-dev.txt constraints.txt pyproject.toml
	@set -e; found=; for p in $(PYTHON) python3.11 python3.10 python3 python; do \
	  if "$$p" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 11))' 2>/dev/null; then found="$$p"; break; fi; done; \
	if [ -z "$$found" ]; then \
	  echo "make: expected Python 3.10 or 3.11 (MONAI Label needs distutils, which later versions dropped), found none."; \
	  echo "      Install one of them, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 2; fi; \
	echo "Making $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check "$$(grep -o '^torch==[0-9.]*' requirements.txt)"
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.txt -r requirements-dev.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $(STAMP)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build *.egg-info
