# make demo   a raw crawl is made, cleaned, packed and trained on; a few minutes on a fresh machine
# make test   the tests, about eight minutes; `make test-slow` runs the long ones: crashes, clusters, learning by heart
# make learn  a small model learns to read and to point from generated scenes; a quarter of an hour on two cores
# make campaign  kills, freezes and starves every job for an hour (MINUTES=5: less); run again, it goes on
# make mutants  plants deliberate bugs, one at a time, and lists those that no test notices; half an hour
# make fresh  both on a bare Debian (SUITE=trixie), as a user without root and as root; needs root and debootstrap
# Python packages go into .venv. Fonts and a browser come from the system: apt-get is asked where it may be; where not,
# what is missing is said, with what it is for, and all else works.

PYTHON ?= python3
BIN := .venv/bin
DEMO ?= demo
MINUTES ?= 60
SUITE ?= stable
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: demo test test-slow lint mutants learn campaign fresh install clean

demo: install
	@./gristmill run recipes/demo.yaml --set output=$(DEMO)

test: install
	@$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-slow: install
	@$(BIN)/python -m pytest -m slow --timeout=900 $(ARGS)

lint: install
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/python -m mypy | $(BIN)/mypy-baseline filter

mutants: install
	@$(BIN)/python benchmarks/mutants.py $(ARGS)

learn: install
	@$(BIN)/python pipelines/learn.py $(ARGS)

campaign: install
	@$(BIN)/python pipelines/campaign.py --minutes $(MINUTES) $(ARGS)

fresh:
	@$(PYTHON) .ci/fresh.py $(SUITE) $(ARGS)

install: .venv/installed .venv/system
	@case "$(MAKECMDGOALS)" in *install*) \
	  echo "./gristmill --help lists what there is; to type it anywhere: ln -s $(CURDIR)/gristmill ~/.local/bin/";; esac

.venv/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv >/dev/null 2>&1 \
	  || { rm -rf .venv && $(PYTHON) -m venv --without-pip .venv && $(BIN)/python .ci/get_pip.py; } \
	  || { rm -rf .venv; echo "no virtual environment could be made: apt-get install python3-venv"; exit 1; }
	@[ -x $(BIN)/uv ] || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@echo "installing the packages of requirements.lock into .venv (6 GB, most of it PyTorch)"
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --requirements requirements.lock
	@touch $@

.venv/system: .venv/installed synth_ocr/faces.csv
	@$(BIN)/python pipelines/doctor.py --install
	@touch $@

clean:
	rm -rf $(DEMO)
