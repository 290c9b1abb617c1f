# Everything a contributor or a curious stranger needs; only Python 3.11+, pip and make must be there.
#   make demo          see it work            make test        the tests, without the slow ones
#   make setup         the environment        make test-slow   the slow ones
#   make lint          style and types        make docs        the pages, into site/
#   make bench         the measurements       make clean       take everything made here away
#   make mlserver      MLServer in an environment of its own, which some tests and benchmarks compare with
#   make proto         the gRPC descriptors, after a change of open_inference.proto
# PYTHON=/path/to/python3.13 makes and uses another environment, .venv-3.13.

PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
ifeq ($(origin PYTHON),file)
VENV := .venv
else
VENV := .venv-$(VERSION)
endif
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)
INPUTS := pyproject.toml constraints.txt

.PHONY: help setup demo test test-slow lint format docs bench mlserver proto clean
.DEFAULT_GOAL := help

help:
	@sed -n '2,8s/^# \{0,1\}//p' Makefile

setup: $(VENV)/.dev

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Leaven needs Python 3.11 or newer; $(PYTHON) is $(VERSION). Name another one: make PYTHON=/path/to/python3.13 …"; exit 1; }
ifdef UV
	$(UV) venv --quiet --python $(PYTHON) $(VENV)
else
	$(PYTHON) -m venv $(VENV)
endif

# A stamp per set of extras: made again when what it was made from changes.
$(VENV)/.%: $(INPUTS) | $(BIN)/python
	@echo "Installing leaven[$*] into $(VENV) …"
ifdef UV
	$(UV) pip install --python $(BIN)/python -c constraints.txt -e '.[$*]'
else
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[$*]'
endif
	@touch $@

demo: $(VENV)/.demo
	$(BIN)/leaven demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto -m "not slow"

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev
	@failed=0; \
	for check in "ruff check" "ruff format --check" mypy; do \
		echo "$(BIN)/$$check"; $(BIN)/$$check || failed=1; \
	done; exit $$failed

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.dev
	@set -e; for each in benchmarks/*.py; do name=$$(basename $$each .py); grep -q __main__ $$each || continue; \
		echo "== $$name"; $(BIN)/python -m benchmarks.$$name; done

# MLServer needs Python 3.11 or 3.12, whichever Leaven is developed with; a stamp, as above.
MLSERVER_PYTHON ?= $(firstword $(foreach each,$(PYTHON) python3.12 python3.11,$(if $(shell \
	$(each) -c 'import sys; print((3, 11) <= sys.version_info < (3, 13) or "")' 2>/dev/null),$(each))))

mlserver: .venv-mlserver/.ready

.venv-mlserver/.ready: tests/mlserver/requirements.txt
	@test -n "$(MLSERVER_PYTHON)" || \
		{ echo "MLServer needs Python 3.11 or 3.12, and neither is here. Name one: make mlserver MLSERVER_PYTHON=/path/to/python3.12"; exit 1; }
	$(MLSERVER_PYTHON) -m venv --clear .venv-mlserver
	.venv-mlserver/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	.venv-mlserver/bin/mlserver --version
	@touch $@

# The compiled protocol is committed; this makes it again in an environment of its own, since the compiler and the stock
# client want different versions of protobuf.
proto:
	$(PYTHON) -m venv build/proto
	build/proto/bin/python -m pip install --quiet --disable-pip-version-check grpcio-tools
	build/proto/bin/python .ci/grpc_descriptors.py

clean:
	rm -rf .venv .venv-* site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
