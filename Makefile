# Every command sets up what it needs: python3 (3.11 or newer), make and a package index are enough.
# The virtual environment is made once and again only when pyproject.toml changes.

PYTHON ?= python3
# Not "?=": some shells export HOST as the name of the machine. `make run HOST=0.0.0.0` sets it.
HOST = 127.0.0.1
PORT = 8000
# S: benchmark scenarios, by their names or how these begin. A: more arguments for pytest or the benchmarks, for
# instance A='-k head -x' or A='--rounds 5'.
S =
A =
# Which tests, and how many at once: on two cores four, since much of their time is waiting for processes. JOBS=0 runs
# one after the other.
MARKS = not long and not wide
JOBS = 4
# How long to fuzz, and which targets.
SECONDS = 60
T =
SANITIZERS = -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -U_FORTIFY_SOURCE
# The other Pythons that `make test-all` looks for.
OTHERS = python3.12 python3.13 python3.14

# Tests start hundreds of processes and import four times each: what is compiled once is kept, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
PY := $(VENV)/bin/python
# Empty files that remember which parts of pyproject.toml are installed.
DEV := $(VENV)/installed-dev
BENCH := $(VENV)/installed-bench
SITE := $(VENV)/installed-site
RELEASE := $(VENV)/installed-release
# The same for the compiled part, which is built where there is a compiler.
BUILT := $(VENV)/built-speedups
INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help run test test-pure test-all fuzz sanitize check lint types format bench profile docs docs-links dist workflows setup clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

run: $(DEV) $(BUILT) ## serve the Flask example on http://127.0.0.1:8000 (PORT=, HOST=)
	@exec $(PY) -m bridge run flask_app:app --app-dir examples --host '$(HOST)' --port '$(PORT)'

test: $(DEV) $(BUILT) ## run the tests, but for a few that take minutes (A= more pytest arguments, JOBS= how many at once)
	@exec $(PY) -m pytest -m '$(MARKS)' -n $(JOBS) --dist loadfile $(A)

test-pure: $(DEV) ## run the tests of what has a compiled part, without it
	@BRIDGE_SPEEDUPS=0 exec $(PY) -m pytest -q -m 'not long and not wide and not slow' -n $(JOBS) --dist loadfile \
	  tests/core tests/adapters tests/wire $(A)

fuzz: $(DEV) $(BUILT) ## give mutated bytes to all parsers for SECONDS=60 (T= only these targets)
	@exec $(PY) -W error -m fuzz --seconds $(SECONDS) $(T)

# In a copy of the tree, so that the module of the work tree stays what it is. Python itself leaks on purpose.
sanitize: $(DEV) ## run the parsers' tests and the fuzzer on a build with AddressSanitizer and UndefinedBehaviorSanitizer
	@rm -rf build/sanitize && mkdir -p build/sanitize
	@cp -r bridge tests fuzz hatch_build.py pyproject.toml build/sanitize
	@rm -f build/sanitize/bridge/*.so
	@cd build/sanitize && BRIDGE_BUILD=compiled CFLAGS='$(SANITIZERS)' LDFLAGS='$(SANITIZERS)' ../../$(PY) hatch_build.py
	@cd build/sanitize && export PYTHONPATH=. PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1 \
	  LD_PRELOAD="$$(cc -print-file-name=libasan.so) $$(cc -print-file-name=libubsan.so)" && \
	  ../../$(PY) -m pytest -q -p no:xdist -m 'not slow and not long' tests/test_speedups.py \
	    tests/core/http1/test_request.py tests/core/http2/test_hpack.py \
	    tests/core/http2/test_request_compiled.py tests/core/http2/test_request_memo.py \
	    tests/core/websocket/test_websocket_receiver.py tests/core/websocket/test_websocket_masking.py \
	    tests/adapters/wsgi/test_wsgi_environ.py && \
	  ../../$(PY) -m fuzz --seconds $(SECONDS) $(T)

test-all: $(DEV) ## run all tests, also without the compiled part, on other Pythons that are installed, and the fuzzer
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory test-pure
	@$(MAKE) --no-print-directory fuzz
	@$(MAKE) --no-print-directory test MARKS=wide
	@$(MAKE) --no-print-directory test MARKS=long JOBS=0
	@for python in $(OTHERS); do \
	  if $$python -c '' 2>/dev/null; then \
	    $(MAKE) --no-print-directory test MARKS='not slow and not wide' PYTHON=$$python VENV=$(VENV)-$$python || exit; \
	  else \
	    echo "$$python is not installed: no tests on it"; \
	  fi; \
	done

check: lint types test ## format, lint, types and tests: what every commit passes

lint: $(DEV) ## check format and style
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .

types: $(DEV) ## check types
	@$(PY) -m mypy

format: $(DEV) ## format the code and repair what can be repaired
	@$(PY) -m ruff check --fix-only --quiet .
	@$(PY) -m ruff format .

bench: $(BENCH) $(BUILT) ## measure bridge beside other servers, about an hour, into docs/benchmarks (S= only these scenarios)
	@exec $(PY) -m benchmarks --publish $(S) $(A)

profile: $(BENCH) $(BUILT) ## show where the time of one benchmark scenario goes (S=)
	@exec $(PY) -m benchmarks.profile $(S) $(A)

docs: $(SITE) $(BUILT) ## write the generated parts of docs/, the site into build/docs, and run all blocks that claim to work
	@$(PY) docs/generate.py
	@$(PY) docs/build.py build/docs
	@$(PY) -m pytest -q -n $(JOBS) --dist load tests/test_docs.py tests/test_docs_commands.py tests/test_switching.py

# Built twice: the bytes have to be the same. The parts are those of an environment that has only the wheel.
dist: $(RELEASE) ## build and check what is published: source, a wheel for this platform, a wheel without compiled part
	rm -rf dist build/again build/parts
	@for folder in dist build/again; do \
	  $(PY) -m build --outdir $$folder . && BRIDGE_BUILD=pure $(PY) -m build --wheel --outdir $$folder . || exit; \
	done
	@for file in dist/*; do cmp $$file build/again/$${file#dist/} || exit; done
	@$(PY) -m twine check --strict dist/*
	@$(VENV)/bin/check-wheel-contents dist/*.whl
	@! git rev-parse --git-dir >/dev/null 2>&1 || $(VENV)/bin/check-sdist --installer pip
	@$(PY) -m venv build/parts && build/parts/bin/python -m pip install --quiet dist/*-none-any.whl
	@$(VENV)/bin/pip-licenses --python=build/parts/bin/python --ignore-packages bridge --partial-match \
	  --allow-only='BSD;MIT;Apache' --output-file=build/licences.txt && cat build/licences.txt
	@$(VENV)/bin/cyclonedx-py environment build/parts --pyproject pyproject.toml --output-reproducible --output-file build/bridge.cdx.json
	@ls dist build/bridge.cdx.json

workflows: $(RELEASE) ## check the workflows, the Dockerfile and pyproject.toml
	@$(VENV)/bin/zizmor --offline --quiet .github
	@$(VENV)/bin/hadolint examples/docker/Dockerfile
	@$(VENV)/bin/validate-pyproject pyproject.toml
	@$(VENV)/bin/cibuildwheel --platform linux --print-build-identifiers .

docs-links: $(SITE) ## ask every address that the docs link to (needs the network)
	@$(PY) -m sphinx --quiet -b linkcheck docs build/links

setup: $(DEV) $(BUILT) ## only make the virtual environment, and build the compiled part

clean: ## remove the virtual environment and everything made by tools
	rm -f bridge/*.so
	rm -rf $(VENV) $(VENV)-* .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage dist build
	find bridge tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEV): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else \
	  "bridge needs Python 3.11 or newer, and $(PYTHON) is %d.%d. Name another: make PYTHON=python3.12" % (v[0], v[1]))'
	@echo "Setting up $(VENV) (once, about a minute) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) --upgrade pip
	@$(INSTALL) --editable '.[dev]'
	@touch $@ $(BUILT)

$(BUILT): bridge/_speedups.c hatch_build.py $(DEV)
	@$(PY) hatch_build.py
	@touch $@

$(RELEASE): pyproject.toml $(DEV)
	@echo "Installing what builds a release ..."
	@$(INSTALL) --editable '.[dev,release]'
	@touch $@

$(SITE): pyproject.toml $(DEV)
	@echo "Installing what makes the site ..."
	@$(INSTALL) --editable '.[dev,docs]'
	@touch $@

$(BENCH): pyproject.toml $(DEV)
	@echo "Installing the servers to compare with ..."
	@$(INSTALL) --editable '.[dev,bench]'
	@touch $@
