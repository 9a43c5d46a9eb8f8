# Everything sets itself up: the first target that needs .venv makes it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
# The tests of one file run in one process and in their order: what they start (a PuppetDB, a fleet) is started once.
SIDE_BY_SIDE = -n $(JOBS) --dist loadfile

.PHONY: demo check test test-all lint run clean bench-store bench bench-peer bench-peer-facts bench-peer-reports bench-peer-runs bench-disk test-store-long bench-scale bench-capacity faults faults-long fuzz test-puppet test-hostile-long bench-load test-oracle-long test-postgresql bench-order bench-page test-freshness-long test-one-box docs deb test-deb check-wheels fuzz-front bench-query test-cluster test-cluster-random test-cluster-outage bench-sharing bench-capacity-runs bench-cluster-costs bench-one-box bench-receipts bench-dashboard bench-slow

$(VENV)/.made: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name it with make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "The module venv is missing: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(VENV)/.made  ## the whole way in a temporary directory, in half a minute
	$(BIN)/ingest demo

run: $(VENV)/.made  ## the engine with embedded parts
	$(BIN)/ingest run

lint: $(VENV)/.made
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint  ## formatting, lint, types and the pure tests: while you work
	$(BIN)/pytest -m "not server and not full" $(SIDE_BY_SIDE)

test: lint  ## what every change must pass, with PostgreSQL and the embedded broker
	$(BIN)/pytest -m "not full" $(SIDE_BY_SIDE)

test-all: lint  ## the same with brokers of others, Puppet and faults, as far as they are installed
	$(BIN)/pytest $(SIDE_BY_SIDE) $(ARGS)

test-puppet: $(VENV)/.made  ## both ends of Puppet, with puppetserver (if it is installed); about ten minutes
	$(BIN)/pytest tests/puppet --long

test-store-long: $(VENV)/.made  ## the store's tests at their full size: 200 nodes, 20 rounds; ten minutes
	INGEST_TEST_STORE_NODES=200 INGEST_TEST_STORE_ROUNDS=20 INGEST_TEST_STORE_EXAMPLES=500 $(BIN)/pytest tests/store

test-freshness-long: $(VENV)/.made  ## who is overdue, against the truth of 3000 nodes that stop, come back, change, with clocks that jump; minutes
	INGEST_TEST_FRESHNESS_NODES=3000 $(BIN)/pytest tests/store/test_freshness_fleet.py

test-postgresql: $(VENV)/.made  ## the store's tests on every PostgreSQL at hand: installed, in the wheel, in INGEST_TEST_POSTGRESQL
	@$(BIN)/python -c 'from lab.servers import postgresql_versions as v; print(*v().values(), sep="\n")' | while read -r bin; do \
		echo "$$bin"; INGEST_TEST_POSTGRESQL_BIN=$$bin $(BIN)/pytest tests/store $(SIDE_BY_SIDE) || exit 1; done

test-hostile-long: $(VENV)/.made  ## ten minutes of hostile messages of every kind between good ones, kills included
	INGEST_TEST_HOSTILE_SECONDS=600 $(BIN)/pytest tests/hostile -s

test-oracle-long: $(VENV)/.made  ## thousands of random queries into PuppetDB and into us, others each time; five minutes
	INGEST_TEST_ORACLE_EXAMPLES=3000 $(BIN)/pytest tests/front/test_oracle.py -s

fuzz-front: $(VENV)/.made  ## ten minutes of made-up requests to all of PuppetDB's interface
	INGEST_TEST_FRONT_SECONDS=600 $(BIN)/pytest tests/front/test_fuzz.py -s

bench-query: $(VENV)/.made  ## what dashboards and compiles ask, beside PuppetDB (if it is installed); ten minutes
	$(BIN)/python -m bench.query $(ARGS)

bench-dashboard: $(VENV)/.made  ## every page of puppetboard in a browser over 1000 nodes with 14 days of reports (if Chromium is installed); minutes
	$(BIN)/python -m bench.dashboard $(ARGS)

bench-slow: $(VENV)/.made  ## what 200 idle and 100 slow clients cost the others and the writers; five minutes
	$(BIN)/python -m bench.slow $(ARGS)

bench-store: $(VENV)/.made  ## WAL and rows a catalog costs, against the limits
	$(BIN)/python -m bench.store $(ARGS)

bench: $(VENV)/.made  ## every suite in its short form, a few minutes; writes bench/records/report.md
	$(BIN)/python -m bench

bench-peer: $(VENV)/.made  ## the same catalogs into PuppetDB (if it is installed) and into this engine
	$(BIN)/python -m bench.peers $(ARGS)

bench-peer-facts: $(VENV)/.made  ## the same with facts
	$(BIN)/python -m bench.peers.facts $(ARGS)

bench-peer-reports: $(VENV)/.made  ## the same with reports
	$(BIN)/python -m bench.peers.reports $(ARGS)

bench-peer-runs: $(VENV)/.made  ## the same with whole runs: facts, catalog, report
	$(BIN)/python -m bench.peers.runs $(ARGS)

bench-disk: $(VENV)/.made  ## what a fleet's reports of 14 days take, from a part of them; minutes
	$(BIN)/python -m bench.disk $(ARGS)

bench-scale: $(VENV)/.made  ## collectors' questions to a fleet of 3000 nodes; five minutes
	$(BIN)/python -m bench.scale $(ARGS)

bench-sharing: $(VENV)/.made  ## CPU of a catalog and waits for locks with one, two and three engines on one queue; five minutes
	$(BIN)/python -m bench.sharing $(ARGS)

bench-load: $(VENV)/.made  ## 3000 nodes at sixty times their pace against an engine started here; three minutes
	$(BIN)/python -m bench.load $(ARGS)

bench-one-box: $(VENV)/.made  ## the same with nothing named: whole runs through the embedded broker and PostgreSQL, both with fsync
	$(BIN)/python -m bench.load --one-box $(ARGS)

bench-receipts: $(VENV)/.made  ## what a receipt of the embedded broker costs, on disk and in memory; a minute
	$(BIN)/python -m bench.receipts $(ARGS)

bench-order: $(VENV)/.made  ## a lone catalog's latency while 100 000 reports wait, and without them; about ten minutes
	$(BIN)/python -m bench.order $(ARGS)

bench-page: $(VENV)/.made  ## what the live page and ingest top cost over 3000 nodes, with nobody, one and ten who look; three minutes
	$(BIN)/python -m bench.page $(ARGS)

bench-capacity: $(VENV)/.made  ## the capacity model against the real engine, table and plot; about twenty minutes
	$(BIN)/python -m bench.capacity $(ARGS)

bench-capacity-runs: $(VENV)/.made  ## the same for whole runs: CPU of each stage, measured and predicted; about five minutes
	$(BIN)/python -m bench.capacity_runs $(ARGS)

faults: $(VENV)/.made  ## every fault, alone and several at once; what was lost (nothing) and how long recovery took
	$(BIN)/python -m tests.faults $(ARGS)

test-cluster: $(VENV)/.made  ## three RabbitMQ, three PostgreSQL under Patroni, three engines, each on a machine of its own, and each fault of docs/clusters.md; an hour
	$(BIN)/python -m tests.cluster $(ARGS)

test-one-box: $(VENV)/.made  ## one box with whole runs, and a kill -9 a second of any of its processes; what was lost (nothing); ten minutes
	$(BIN)/python -m tests.faults.one_box $(ARGS)
test-cluster-random: $(VENV)/.made  ## the same cluster, and ten minutes of faults at random, several at once, under whole runs of 300 nodes
	$(BIN)/python -m tests.cluster.at_random $(ARGS)

MINUTES ?= 15
test-cluster-outage: $(VENV)/.made  ## the same cluster, its database away for MINUTES once, at two queues with the delivery limits 3 and 20
	$(BIN)/python -m tests.cluster --fault 'delivery limit' --outage-s $$(($(MINUTES) * 60)) $(ARGS)

faults-long: $(VENV)/.made  ## a thousand kills in one run, and the tests of faults at their full sizes
	$(BIN)/python -m tests.faults --part 'embedded broker' --kills 1000
	INGEST_FUZZ_EXAMPLES=5000 $(BIN)/pytest tests/faults --long -s

fuzz: $(VENV)/.made  ## many mutants through the decoders, warm ones and cold ones; with atheris too, where it installs
	INGEST_FUZZ_EXAMPLES=50000 $(BIN)/pytest tests/faults/test_warm_and_cold.py -s
	INGEST_FUZZ_EXAMPLES=20000 $(BIN)/pytest tests/faults/test_fuzz.py -s
	$(BIN)/pip install --quiet atheris && $(BIN)/python -m tests.faults.atheris_run -max_total_time=60 || echo "atheris: skipped, it does not install here"

docs: $(VENV)/.made  ## the documentation as a site, in site/, with the reference and every link checked
	$(BIN)/python -m tools.reference docs/reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

deb: $(VENV)/.made  ## dist/puppet-ingest_VERSION_ARCH.deb, for this system's Python; lintian looks at it where it is installed
	packaging/deb/build
	! command -v lintian >/dev/null || lintian --allow-root --fail-on error,warning dist/*.deb

test-deb: deb  ## a fresh Debian 12 that systemd boots: the commands of docs/install.md, and what the units promise; as root, minutes
	packaging/deb/test.py $(ARGS)

check-wheels: $(VENV)/.made  ## that everything installs from wheels on x86_64 and aarch64, Python 3.11 to 3.14; asks the registry
	@for python in 3.11 3.12 3.13 3.14; do for machine in x86_64 aarch64; do \
		$(BIN)/pip install --dry-run --quiet --ignore-installed --only-binary=:all: --implementation cp --python-version $$python \
			--platform manylinux_2_28_$$machine --platform manylinux2014_$$machine --target build/none \
			$$($(PYTHON) -c 'import tomllib as t; p = t.load(open("pyproject.toml", "rb"))["project"]; o = p["optional-dependencies"]; print(*p["dependencies"], *o["capacity"], *o["http"])') \
			&& echo "Python $$python, $$machine: all are wheels" || exit 1; done; done

clean:
	rm -rf $(VENV) build dist site docs/reference *.egg-info
