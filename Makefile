# Everything here works in a fresh clone, with empty caches, on a machine that has only Python 3.11, Java 17 and Maven.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# make run ONCE=1: stop by itself when nothing has happened for a while.
UP_FLAGS := $(if $(filter-out 0,$(ONCE)),--exit-when-idle 15)
# make test ARGS="-k lapsed": passed on to pytest.
ARGS ?=
# Test processes side by side, each with a broker of its own if it needs one.
WORKERS ?= 2
SEEDS ?= 200
CASES ?= 10000
FIRST ?= 1
BODIES ?= 1000000
REQUESTS ?= 100000

.PHONY: help install helm run test test-rooms test-kafka check format attack blackbox fuzz-collector fuzz-doors erasures leaving simulate lives golden
.PHONY: image site dist dist-check licences sbom destinations audiences projection rules bench compile pure test-compiled clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: $(INSTALLED) ## install into .venv

$(INSTALLED): pyproject.toml
	@$(or $(PYTHON),false) -c '$(IS_NEW_ENOUGH)' || { echo "Python 3.11 or newer was not found ($(or $(PYTHON),no python3)). Install it, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@# What another Python made, or one that is gone, would keep that one.
	@$(BIN)/python -c '$(IS_NEW_ENOUGH)' 2>/dev/null || rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): a minute or a few the first time"
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

run: install ## the whole job on this machine, with the sample shop; ONCE=1 stops by itself
	$(BIN)/headwater up --sample $(UP_FLAGS)

test: test-rooms test-kafka ## all tests, on a real broker

test-rooms: install ## the tests that need no broker
	$(BIN)/python -m pytest tests --ignore tests/kafka -n $(WORKERS) --dist loadfile $(ARGS)

test-kafka: install ## the tests on a real broker
	$(BIN)/python -m pytest tests/kafka -n $(WORKERS) --dist loadfile $(ARGS)

check: install ## lint, types, import rules, records that fit those of the last release
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.rooms.schemas.compatible

format: install ## put the code into its common form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

attack: install ## the fault campaign on a real broker; ARGS="--kills 2000 --others 500" for longer
	$(BIN)/python -m tests.attack $(ARGS)

blackbox: install ## from DESIGN alone, by the doors alone, nasty events and kills: make blackbox ARGS="--seeds 3 --first 1"
	$(BIN)/python -m tests.blackbox $(ARGS)

fuzz-collector: install ## malformed bodies for the HTTP collector: make fuzz-collector BODIES=1000000
	$(BIN)/python -m tests.collector.fuzz --bodies $(BODIES) --seed $(FIRST)

fuzz-doors: install ## odd requests for every page and every route of the API: make fuzz-doors REQUESTS=100000 FIRST=1
	$(BIN)/python -m tests.hostile.campaign --requests $(REQUESTS) --seed $(FIRST)

destinations: install ## five destinations, one dead, one slow, one flapping, and kills: make destinations ARGS="--kills 30"
	$(BIN)/python -m tests.destinations $(ARGS)

audiences: install ## a backfill of 100,000 members, logins, re-resolution: what triggers hear, what audiences hold
	$(BIN)/python -m tests.audiences $(ARGS)

projection: install ## a random day with failures: what destinations hold is the projection of the profiles
	$(BIN)/python -m tests.projection $(ARGS)

rules: install ## take the rules of the engine out, one at a time: the tests named for each must fail
	$(BIN)/python -m tests.rules $(ARGS)

erasures: install ## people who are linked, unlinked and erased in random order, from seeds: make erasures SEEDS=1000 FIRST=1
	$(BIN)/python -m tests.simulation.erasures --seeds $(SEEDS) --first $(FIRST)

lives: install ## profiles that end by themselves, amid all else that happens to people, from seeds: make lives SEEDS=1000 FIRST=1
	$(BIN)/python -m tests.simulation.lives --seeds $(SEEDS) --first $(FIRST)

leaving: install ## what leaves about people is allowed: random policies and profiles, judged: make leaving CASES=10000
	$(BIN)/python -m tests.leaving --cases $(CASES) $(ARGS)

simulate: install ## the whole pipeline in memory, from seeds: make simulate SEEDS=1000 FIRST=1
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --first $(FIRST) $(ARGS)

golden: install ## a state folder and topics of this version, for later ones to read: tests/golden/VERSION
	$(BIN)/python -m tests.golden.make $(ARGS)

bench: install ## the core job, compiled if there is a C compiler, beside its peers: build/bench/core.md; ARGS="--events 300000"
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	if command -v cc >/dev/null; then $(MAKE) compile; else echo "no C compiler: the rooms run as Python"; fi
	$(BIN)/python -m bench.core $(ARGS); ended=$$?; $(MAKE) --no-print-directory pure; exit $$ended

helm: ## helm, built from the Go registry into build/tools, where tests/deploy finds it
	GOBIN=$(CURDIR)/build/tools go install helm.sh/helm/v3/cmd/helm@v3.22.0

dist: install ## the sdist and the wheel, in build/dist
	rm -rf build/dist
	$(BIN)/python -m build --outdir build/dist

dist-check: dist ## the wheel with all that it needs, installed from the registry into an empty environment
	rm -rf build/clean
	$(PYTHON) -m venv build/clean
	build/clean/bin/python -m pip install --quiet --find-links build/dist 'headwater[api,avro,cleaning,collector,parquet,postgres,redis,ui]'
	cd build && clean/bin/headwater --help && clean/bin/headwater run --help

site: install ## the docs as a site, in build/site/html
	$(BIN)/python docs/site/pages.py build/site
	cd build/site && ../../$(BIN)/zensical build --strict

image: ## the image without a container engine, as root on Debian: buildah and debootstrap
	deploy/image.sh

licences: install ## the licences of what an installation brings along; fails if one is not allowed
	$(BIN)/python -m tests.deploy.licences

sbom: dist-check ## what an installation brings along, as CycloneDX: build/sbom.json
	$(BIN)/python -m cyclonedx_py environment build/clean/bin/python --pyproject pyproject.toml --output-reproducible \
		--output-format JSON --output-file build/sbom.json

compile: install pure ## the hot rooms as C beside their sources, until `make pure`: faster; needs a C compiler
	HEADWATER_COMPILE=1 $(BIN)/python setup.py --quiet build_ext --inplace
	@touch pipeline/hot__mypyc*.so

pure: ## take the compiled rooms away: the rooms as Python again
	find . -maxdepth 4 -name '*.so' -not -path './.venv/*' -not -path './build/*' -delete

test-compiled: compile ## the compiled rooms: their tests, the simulation, and that their bytes are those of Python
	$(BIN)/python -m pytest tests/rooms/test_compiled.py tests/rooms/profile tests/rooms/segments tests/rooms/unify \
		tests/simulation -n $(WORKERS) --dist loadfile $(ARGS)

clean: pure ## remove what was installed and cached in this folder (never any state)
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
