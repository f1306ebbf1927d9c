# make demo | test | test-slow | fuzz | lint | docs | bench | licences | hashes | clean; each makes .venv first.  ARGS=… goes to the command,
# PYTHON=… chooses the interpreter, EXTRAS=… what is installed beside the base, WORKERS=… the processes that tests run in.
EXTRAS ?= dev,tensorflow,jax,torch,chest,app,export,sweep,hub,shards,gcs,s3
ARGS ?=
WORKERS ?= -n auto --maxprocesses 4
VENV := .venv
STAMP := $(VENV)/.installed
SUITABLE := import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$python -c "$(SUITABLE)" >/dev/null 2>&1 && { echo $$python; break; }; done)

export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: .venv demo test test-slow fuzz lint docs bench licences hashes clean
.venv: $(STAMP)

# The stamp comes last: an install that was interrupted is taken up again, a finished one only after a change.
$(STAMP): pyproject.toml constraints.txt
	@$(or $(PYTHON),false) -c "$(SUITABLE)" 2>/dev/null || { \
		echo "Python 3.10 to 3.13 with its venv module is needed (Debian: python3-venv). Received:" \
		"PYTHON='$(PYTHON)'. Name one: make .venv PYTHON=/path/to/python3" >&2; exit 2; }
	@rm -f $@
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing into $(VENV): about 1 GB to download with TensorFlow, more where torch brings CUDA; minutes."
	$(VENV)/bin/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

demo: $(STAMP)
	$(VENV)/bin/python -m tf_simclr demo $(ARGS)

test: $(STAMP)
	$(VENV)/bin/python -m pytest $(WORKERS) $(ARGS)

# A file's tests stay in one process: a page's blocks need what those before them made.
test-slow: $(STAMP)
	$(VENV)/bin/python -m pytest $(WORKERS) --dist loadfile -m slow $(ARGS)

# Changed files of every container; what was read wrong, crashed, was slow or large is listed, and the exit code is 1.
fuzz: $(STAMP)
	$(VENV)/bin/python -m tests.fuzz --files 5000 $(ARGS)

lint: $(STAMP)
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m mypy

# The pages of docs/ and the reference, with search; a warning is an error.
docs: $(STAMP)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	TF_CPP_MIN_LOG_LEVEL=3 $(VENV)/bin/python -m sphinx --builder html --fail-on-warning --keep-going --quiet $(ARGS) docs site
	@echo "site/index.html"

# Hours; QUICK=1: minutes.  Each benchmark prints its table; what fails is named at the end, and the exit code is 1.
bench: $(STAMP)
	$(VENV)/bin/python benchmarks/run_all.py $(if $(QUICK),--quick) $(ARGS)

# The licence of every installed package that this project needs; exit code 1 where one is copyleft, or unknown.
licences: $(STAMP)
	$(VENV)/bin/python tools/licences.py

# requirements-hashed.txt: constraints.txt with everything that it leaves to others, and the checksums of the files;
# for `pip install --require-hashes -r requirements-hashed.txt`, and then `pip install --no-deps .`.
hashes: $(STAMP)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'
	$(VENV)/bin/uv pip compile pyproject.toml $(foreach extra,dev tensorflow jax torch chest app export sweep hub shards gcs s3,--extra $(extra)) \
		--constraint constraints.txt --universal --python-version 3.10 --generate-hashes --quiet \
		--custom-compile-command 'make hashes' --output-file requirements-hashed.txt

clean:
	rm -rf build dist site docs/api docs/commands.md *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find tf_simclr converters tests -name __pycache__ -type d -prune -exec rm -rf {} +
