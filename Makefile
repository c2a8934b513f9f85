# One way to do each thing. Every target creates what it needs, in .venv of this checkout; needed beforehand are
# Python 3.11+, a C compiler, make and git. `make PYTHON=python3.13 VENV=.venv313 test` uses another Python beside it.

PYTHON ?= python3
VENV ?= .venv
PY = $(VENV)/bin/python
PIP = $(PY) -m pip --disable-pip-version-check --quiet
DONE = $(VENV)/.done
TESTS ?= tests
SEEDS ?= 40000
ARGS ?=
EXTRAS ?= binary,embedded
SECONDS ?= 60

CORE = $(wildcard cython/pgsession/_core/*.pyx cython/pgsession/_core/*.pxd cython/pgsession/_core/*.h)
DECISIONS = $(wildcard src/pgsession/_protocol/*.pxd src/pgsession/_database/*.pxd)
DEMO = examples/demo.py

.DEFAULT_GOAL = help
.PHONY: help build demo shop screenshots system-packages test check check-hot docs docs-look bench chaos ha citus kill litmus web-matrix fuzz faults mutate wheel portability wheel-aarch64 sanitize free-threading sync clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

build: $(DONE)/core ## the virtual environment, and what is compiled

demo: build ## the main job on two nodes, as a table
	$(PY) $(DEMO)

shop: build ## the example shop, a web application on two nodes, for your browser
	$(PY) -m examples.shop $(ARGS)

screenshots: build ## the pictures of docs/shop.md, taken of the shop with Chromium
	$(PY) -m tools.screenshots

system-packages: ## as root: Chromium, curl, PgBouncer, Prometheus and Redis, which pip cannot bring and some tests need
	tools/system_packages.sh

test: $(DONE)/django build ## every test; TESTS=tests/core ARGS="-x -k name" for some
	$(PY) -m pytest $(ARGS) $(TESTS)

check: $(DONE)/docs build ## lint, format, types, layers, generated code, documentation
	$(PY) tools/check.py

check-hot: build ## instructions of reads and of writes in the client, Python calls of reads, with valgrind; ARGS=--record to take them as they are
	$(PY) tools/check_hot.py $(ARGS)

docs: $(DONE)/docs build ## the site of docs/, in build/site; a broken link or docstring is an error
	$(PY) tools/docs.py

docs-look: docs ## that site in Chromium, narrow and wide, light and dark, with axe-core; pictures in build/look
	$(PY) tools/docs_look.py

bench: $(DONE)/bench build ## compare with what else a service would use, and with the recorded run; ARGS="-k get" for a part
	$(PY) -m pytest -q -W default benchmarks $(ARGS)

chaos: build ## the simulation at length, then SECONDS=60 of random operations and faults on a real server; SHARED=1: with one cache a host; SHARDS=1: on shards of two servers
	$(PY) -m tests.simulation --seeds $(SEEDS)
	$(PY) -m tests.simulation --hosts --seeds $$(($(SEEDS) / 10))
	$(PY) -m tests.chaos --seconds $(SECONDS) $(if $(SHARED),--shared) $(if $(SHARDS),--shards) $(ARGS)

ha: $(DONE)/ha build ## three members of Patroni that lose their leader in every way, under load, ten minutes at most; needs etcd
	$(PY) -m tests.ha $(ARGS)

citus: build ## the manager's tests on shards that Citus moves, then SECONDS=60 under load; needs the cluster whose coordinator PGSESSION_CITUS_DSN names
	PGSESSION_TEST_SHARDS=citus $(PY) -m pytest tests/citus tests/aio tests/sync -k citus
	$(PY) -m tests.citus --seconds $(SECONDS) $(ARGS)

web-matrix: build ## the rules of web sessions, and a shared cache, on every server; ARGS="-k uvicorn" for some
	PGSESSION_WEB_MATRIX=1 $(PY) -m pytest tests/web/rules tests/host/test_servers.py $(ARGS)

kill: build ## SECONDS=60 of processes that are killed while they share a cache, then each rule broken on purpose
	$(PY) -m tests.kill --seconds $(SECONDS) $(ARGS)

litmus: build ## what processors may reorder of the shared cache, by the models of C11 and ARM; needs herd7
	$(PY) -m tests.litmus

fuzz: build ## SECONDS=60 of keys, notifications, tokens and rows as nobody should send them
	$(PY) -m tests.fuzz --seconds $(SECONDS) $(ARGS)

faults: build ## show that the tests of tests/faults.toml fail on the commits before; ARGS="29 31" for some rows
	$(PY) tools/prove_faults.py $(ARGS)

mutate: build ## break the source in one place at a time: the tests named in tools/mutations must fail; ARGS="core" for some
	$(PY) tools/mutate.py $(ARGS)

wheel: $(DONE)/wheels build ## sdist, wheels from it, their contents, their tests in clean environments
	$(PY) tools/wheel.py

portability: $(DONE)/portability build ## compile the core for other systems, and run its shared cache with musl and on an emulated ARM64
	$(PY) tools/portability.py
	$(PY) -m tests.kill.elsewhere

wheel-aarch64: ## as root: an ARM64 wheel, tested under emulation
	tools/wheel_aarch64.sh

sanitize: build ## the core's tests and the fuzz tests under AddressSanitizer and UndefinedBehaviorSanitizer
	$(PY) tools/sanitize.py $(ARGS)

free-threading: build ## the core that is declared for it, tested on PYTHON_FT=/path/to/python3.13t (3.13 or later)
	$(PY) tools/free_threading.py '$(PYTHON_FT)' $(ARGS)

sync: build ## generate the sync shells and tests from the async ones
	$(PY) tools/async_to_sync.py

clean: ## remove everything that make has made
	rm -rf $(VENV) .venv[0-9]* .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist
	rm -rf src/pgsession.egg-info src/pgsession/_*/*.so src/pgsession/_*/*.pyd
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps. An old pip knows no dependency groups, so it is brought up to date first.

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11+ is needed; name one: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(DONE)/dependencies: pyproject.toml | $(PY)
	$(PIP) install --upgrade 'pip>=25.1'
	$(PIP) install --group dev
	$(PIP) install --no-build-isolation --editable '.[$(EXTRAS)]'
	@mkdir -p $(@D) && touch $@

$(DONE)/core: $(DONE)/dependencies setup.py $(CORE) $(DECISIONS) $(DECISIONS:.pxd=.py)
	$(PY) setup.py --quiet build_ext --inplace
	@touch $@

# Django's own tests are in its sdist only.
$(DONE)/django: tests/web/django/django.txt $(DONE)/dependencies
	rm -rf build/django && mkdir -p build/django
	$(PIP) download --no-deps --no-binary :all: --no-build-isolation --require-hashes --dest build/django -r $<
	tar -xzf build/django/*.tar.gz -C build/django --strip-components=1
	@touch $@

$(DONE)/bench $(DONE)/docs $(DONE)/ha $(DONE)/wheels $(DONE)/portability: $(DONE)/dependencies
	$(PIP) install --group $(@F)
	@touch $@
