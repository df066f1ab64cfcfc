# make demo   a raw crawl is made, cleaned, packed and trained on; a few minutes on a fresh machine
# make test   the tests, about five minutes; `make test-slow` runs the long ones: crashes, clusters, learning by heart
# make learn  a small model learns to read and to point from generated scenes; a quarter of an hour on two cores
# Python packages go into .venv. System packages (Chromium, fonts) come from apt where this user may install them;
# where not, the jobs and tests that need them say what is missing.

PYTHON ?= python3
BIN := .venv/bin
DEMO ?= demo
APT_PACKAGES := chromium poppler-utils tesseract-ocr tesseract-ocr-eng tesseract-ocr-chi-sim \
                $(shell awk -F, 'NR > 1 { print $$3 }' synth_ocr/faces.csv | sort -u)
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo -n)
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: demo test test-slow learn install clean

demo: install
	@$(BIN)/python pipelines/demo.py --output $(DEMO)

test: install
	@$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-slow: install
	@$(BIN)/python -m pytest -m slow --timeout=900 $(ARGS)

learn: install
	@$(BIN)/python pipelines/learn.py $(ARGS)

install: .venv/installed .venv/system

.venv/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || $(SUDO) apt-get install -qq -y python3-venv >/dev/null \
	  || { echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@[ -x $(BIN)/uv ] || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@echo "installing $$(grep -c == requirements.lock) packages into .venv (6 GB, most of it PyTorch)"
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --requirements requirements.lock
	@touch $@

.venv/system: .venv/installed synth_ocr/faces.csv
	@missing=$$(for p in $(APT_PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done); \
	 if [ -n "$$missing" ]; then \
	   echo "installing system packages:" $$missing; \
	   { $(SUDO) apt-get update -qq && DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -qq -y \
	       --no-install-recommends $$missing; } >/dev/null 2>&1 \
	   || { echo "could not install them; rendering and synthetic OCR need: apt-get install" $$missing; exit 0; }; \
	 fi; touch $@

clean:
	rm -rf $(DEMO)
