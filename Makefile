# One virtual environment in the checkout; uv makes it when it is there, pip when it is not.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SERVE ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: proof simulations help demo test test-ai-sdk test-all check format bench bench-all faults servers clean

help:  ## what there is to type
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

# A stamp per set of packages: the second run of any command finds it and installs nothing.
$(VENV)/.made:
	@if command -v uv >/dev/null 2>&1; then uv venv -q --allow-existing --seed --python $(PYTHON) $(VENV); \
	else $(PYTHON) -m venv $(VENV); fi
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "ldinstrument needs Python 3.10 or newer; say: make PYTHON=/path/to/python3.x"; exit 1; }
	@command -v uv >/dev/null 2>&1 || $(BIN)/python -m pip install -q --upgrade 'pip>=25.1'
	@touch $@

# Extras carry commas, which $(call) would split at: what to install is a variable of each stamp instead.
$(VENV)/.demo: WANT = -e '.[dev,flask]'
$(VENV)/.test: WANT = -e '.[dev,flask,django,redis,ai,cost]' --group test
$(VENV)/.ai-sdk: WANT = -e '.[ai]' --group ai-sdk
$(VENV)/.check: WANT = --group check
$(VENV)/.bench: WANT = --group bench
$(VENV)/.servers: WANT = --group servers

$(VENV)/.demo: $(VENV)/.made pyproject.toml
$(VENV)/.test: $(VENV)/.demo pyproject.toml
$(VENV)/.ai-sdk: $(VENV)/.made pyproject.toml
$(VENV)/.check: $(VENV)/.test pyproject.toml
$(VENV)/.bench: $(VENV)/.test pyproject.toml
$(VENV)/.servers: $(VENV)/.test pyproject.toml
$(VENV)/.demo $(VENV)/.test $(VENV)/.ai-sdk $(VENV)/.check $(VENV)/.bench $(VENV)/.servers:
	@echo "installing what 'make $(patsubst .%,%,$(notdir $@))' needs (once) ..."
	@if command -v uv >/dev/null 2>&1; then VIRTUAL_ENV=$(CURDIR)/$(VENV) uv pip install -q $(WANT); \
	else $(BIN)/python -m pip install -q $(WANT); fi
	@touch $@

demo: $(VENV)/.demo  ## real traffic into a local LaunchDarkly, and what it then holds (SERVE=1: stay up)
	@$(BIN)/ldinstrument demo $(if $(SERVE),--serve)

# Four processes also where there are two cores: much of a test is waiting for a server.
test: $(VENV)/.test  ## the whole test suite (ARGS="-k name" for a part)
	@$(BIN)/python -m pytest $(or $(ARGS),-n 4)
	@$(if $(ARGS),,$(MAKE) --no-print-directory test-ai-sdk)

# LaunchDarkly's new AI SDK needs Python 3.12: where the suite runs on an older one, a second environment has its tests.
test-ai-sdk: $(VENV)/.made  ## the tests of LaunchDarkly's new AI SDK and of MCP 2, under Python 3.12 or 3.13
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then exit 0; fi; \
	for v in 3.13 3.12; do exe=$$(PYENV_VERSION=3.11.7:3.10.13:3.12.1:3.13.0 python$$v -c 'import sys; print(sys.executable)' 2>/dev/null) && break; done; \
	if [ -z "$$exe" ]; then \
		echo "== LaunchDarkly's new AI SDK needs Python 3.12 or newer, and none is installed here: its tests did NOT run"; exit 0; fi; \
	echo "== LaunchDarkly's new AI SDK, under $$exe"; \
	$(MAKE) --no-print-directory .venv-ai/.ai-sdk PYTHON="$$exe" VENV=.venv-ai && .venv-ai/bin/python -m pytest tests/ai/test_handlers.py tests/mcp_tools

check: $(VENV)/.check  ## ruff format and lint, mypy --strict, pyright on the typing cases
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/pyright --pythonpath $(BIN)/python tests/typing_cases

format: $(VENV)/.check  ## let ruff write
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

test-all:  ## the suite on every Python 3.10 to 3.13 that is installed
	@set -e; ran=0; for v in 3.10 3.11 3.12 3.13; do \
		p=$$(PYENV_VERSION=3.11.7:3.10.13:3.12.1:3.13.0 sh -c "command -v python$$v && python$$v -c '' 2>/dev/null" | head -n 1); \
		if [ -z "$$p" ] || ! PYENV_VERSION=3.11.7:3.10.13:3.12.1:3.13.0 python$$v -c '' 2>/dev/null; then \
			echo "== Python $$v: not installed here, skipped"; continue; fi; \
		exe=$$(PYENV_VERSION=3.11.7:3.10.13:3.12.1:3.13.0 python$$v -c 'import sys; print(sys.executable)'); \
		echo "== Python $$v"; ran=1; $(MAKE) --no-print-directory test PYTHON="$$exe" VENV=.venv-$$v; \
	done; [ $$ran = 1 ]

bench: $(VENV)/.bench  ## what a run costs whole, each figure beside its wanted one (under 5 minutes; ARGS=--write: into docs/)
	@$(BIN)/python benchmarks/bench_life.py $(ARGS)

bench-all: bench  ## that, and the benchmarks of each part (about 20 minutes)
	@for b in benchmarks/bench_*.py; do [ $$b = benchmarks/bench_life.py ] || { echo "== $$b"; $(BIN)/python $$b || exit 1; }; done

proof: $(VENV)/.test  ## random programs and worlds against an independent computation, long (about 15 minutes)
	@PROGRAMS=$(or $(PROGRAMS),2000) TRIALS=$(or $(TRIALS),400) $(BIN)/python -m pytest tests/sessions/test_programs.py \
		tests/sessions/test_worlds.py -n 4 -q -p no:cacheprovider

simulations: $(VENV)/.test  ## experiments without and with an effect, of every default metric, ten times the suite's (about 10 minutes)
	@SIMULATIONS=$(or $(SIMULATIONS),10) $(BIN)/python -m pytest tests/analysis/test_simulations.py -n 2 -q -p no:cacheprovider

faults: $(VENV)/.test  ## the table of faults in docs/reliability.md, measured anew (about 8 minutes)
	@$(BIN)/python benchmarks/faults.py --scale 30 --write

servers:  ## what real servers and queues lose in each way of stopping; writes docs/web.md (20 minutes; ARGS="--only uvicorn")
	@$(MAKE) --no-print-directory .venv-servers/.servers VENV=.venv-servers
	@.venv-servers/bin/python -m pip install -q uwsgi 2>/dev/null || echo "uWSGI does not install here"
	@[ -e /usr/lib/apache2/modules/mod_wsgi.so ] || apt-get install -qq -y --no-install-recommends \
		apache2 libapache2-mod-wsgi-py3 >/dev/null 2>&1 || echo "mod_wsgi does not install here"
	@.venv-servers/bin/python benchmarks/servers.py --write $(ARGS)

clean:  ## remove the virtual environments and caches
	@rm -rf $(VENV) .venv-3.* .venv-ai .venv-servers .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
