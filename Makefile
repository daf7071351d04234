# Everything on a fresh machine: `make demo` runs the main job end to end, `make test` passes all tests.
# Each target makes .venv once and uses it again; it is made anew when a requirements file changes.

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
ANNOTATE := apps/rep3d_label/annotate
VIEWER := $(ANNOTATE)/node_modules/.package-lock.json
OUT ?= demo_output
PORT ?= 8000
HOST ?= 127.0.0.1
ARGS ?=
WORKERS ?= 4

.PHONY: help demo serve test test-slow lint pictures gpu-check venv viewer clean

help:
	@echo "make demo                 the whole loop on generated images: server, segmentation, corrections, retraining, report"
	@echo "make serve STUDIES=DIR    start the MONAI Label server on a folder of images (HOST=$(HOST) PORT=$(PORT) ARGS='--conf labels a,b')"
	@echo "make test                 all tests but the slow ones (WORKERS=$(WORKERS) at a time, ARGS=tests/client for some)"
	@echo "make test-slow            the slow tests"
	@echo "make lint                 ruff, mypy, who may import whom, and known vulnerabilities in what is pinned"
	@echo "make pictures             the pictures of README and docs, from a real session (needs chromium)"
	@echo "make viewer               NiiVue, which draws the page for annotating, from npm (part of all the others)"
	@echo "make gpu-check            all that a GPU can show, in nine minutes (needs a Python with PyTorch: PYTHON=python3)"
	@echo "make clean                remove .venv and caches"

demo: $(STAMP) viewer
	$(VENV)/bin/rep3d demo --out $(OUT) $(ARGS)

serve: $(STAMP) viewer
	@test -n "$(STUDIES)" || { echo "make serve: name the folder of your images. Say: make serve STUDIES=/path/to/images"; exit 2; }
	PATH="$(abspath $(VENV))/bin:$$PATH" monailabel start_server --app apps/rep3d_label --studies "$(STUDIES)" --host $(HOST) --port $(PORT) $(ARGS)

# Folders are named to the second run, not files: a file that is named is collected even where what it imports is not there.
test: $(STAMP) viewer
	@sh tests/system_packages.sh
	$(PY) -m pytest -m "not slow and not timed" -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)
	$(PY) -m pytest -m "timed and not slow" $(or $(ARGS),$(sort $(dir $(shell grep -rl --include='*.py' 'mark\.timed' tests)))) || test $$? = 5  # 5: none of these was chosen

test-slow: $(STAMP) viewer
	$(PY) -m pytest -m slow --timeout=3600 $(ARGS)

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	PYTHONPATH=apps/rep3d_label:slicer_extension/Rep3DLabel $(VENV)/bin/lint-imports
	@sh scripts/audit.sh $(PY)

pictures: $(STAMP) viewer
	@sh tests/system_packages.sh
	$(PY) -m tests.extension.pictures docs/images

# Not in .venv: PyTorch's CPU build may be there, and the machine's own is what is to be checked.
gpu-check:
	$(or $(PYTHON),python3) scripts/gpu_check.py $(ARGS)

venv: $(STAMP) viewer

# Without it all works but the page for annotating, which says what is missing.
viewer: $(STAMP)
	@[ $(VIEWER) -nt $(ANNOTATE)/package-lock.json ] || $(PY) scripts/install_viewer.py || true

$(STAMP): requirements.txt requirements-dev.txt constraints.txt pyproject.toml
	@set -e; found=$$(sh scripts/find_python.sh $(PYTHON)); \
	echo "Making $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check "$$(grep -o '^torch==[0-9.]*' requirements.txt)"
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.txt -r requirements-dev.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $(STAMP)

clean:
	rm -rf $(VENV) $(ANNOTATE)/node_modules .gpu_packages .pytest_cache .mypy_cache .ruff_cache build *.egg-info
