"""puppetserver (JRuby), with two instances and multithreaded, RabbitMQ and ActiveMQ: what holds under plain Ruby
holds there. Minutes long, so only with --long: `make test-puppet`."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lab.brokers import BROKERS, PASSWORD, USER, Broker
from lab.engine import Engine
from lab.servers import Postgres
from lab.stomp_client import Client
from tests.puppet import temper
from tests.puppet.puppetserver import PuppetServer, Refused
from tests.puppet.shapes import SHAPES, TYPES, manifest
from tests.puppet.site import MODULE, Site, messages, refs

AGENTS, RUNS = 4, 6
TIMEOUT_S = 120.0
# Some hundred KB, so that messages overlap on the wire: each agent's own, so that a mixture shows.
LARGE = """
node /^agent/ {
  Integer[1, 300].each |$n| { notify { "${trusted['certname']} ${n}": message => sprintf('%01000d', $n) } }
}
node default { notify { 'x': } }
"""


class Running(NamedTuple):
    server: PuppetServer
    database: str
    mode: str


pytestmark = pytest.mark.long


@pytest.fixture(scope="module", params=["two instances", "multithreaded"])
def running(
    request: pytest.FixtureRequest, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """One puppetserver for all tests of a mode: it takes half a minute to come up."""
    if (why := PuppetServer.missing()) is not None:
        pytest.skip(why)
    name = f"puppetserver_{request.param.replace(' ', '_')}"
    postgres.execute("postgres", f"CREATE DATABASE {name} TEMPLATE template_ingest")
    site = Site(tmp_path_factory.mktemp("puppetserver") / "site")
    site.code(manifest() + LARGE)
    database = postgres.conninfo(name)
    site.configure(broker="stomp://127.0.0.1:1", database=database)
    server = PuppetServer(site, instances=2, multithreaded=request.param == "multithreaded")
    try:
        server.start()
        yield Running(server, database, request.param)
    finally:
        server.stop()
        postgres.execute("postgres", f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["rabbitmq", "activemq"])
def broker(request: pytest.FixtureRequest, running: Running) -> Iterator[Broker]:
    """A broker of its own, and JRuby instances that have read of it."""
    kind = BROKERS[request.param]
    if (why := kind.missing()) is not None:
        pytest.skip(why)
    made = kind()
    try:
        made.start()
        running.server.site.configure(broker=made.url(), database=running.database)
        running.server.flush_pool()
        yield made
    finally:
        made.remove()


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def waiting(site: Site) -> set[str]:
    """The nodes whose catalogs are in the spool."""
    return {json.loads(body)["name"] for body in messages(site.spool)}


def test_four_agents_at_once_every_message_arrives_whole_and_once(running: Running, broker: Broker) -> None:
    """Each catalog that an agent got is one message at the broker, with all of its own resources and no other's."""
    before = len(running.server.problems())
    agents = [f"agent{number}" for number in range(AGENTS)]
    sent: dict[str, str] = {}

    def run(agent: str) -> None:
        for _ in range(RUNS):
            transaction = str(uuid.uuid4())
            sent[transaction] = agent
            found = running.server.compile(agent, transaction)
            assert len(found["resources"]) >= 300

    with ThreadPoolExecutor(AGENTS) as pool:
        list(pool.map(run, agents))
    arrived = []
    with Client(broker.port, USER, PASSWORD) as client:
        client.subscribe("/queue/catalog")
        while len(arrived) < AGENTS * RUNS:
            arrived.append(client.message())
            client.acknowledge(arrived[-1])
        # What arrived twice would stand before this.
        with Client(broker.port, USER, PASSWORD) as other:
            other.publish("/queue/catalog", b"last")
        last = client.message()
        client.acknowledge(last)
        client.disconnect()
    assert last.body == b"last"
    assert {m.headers["transaction_uuid"]: m.headers["certname"] for m in arrived} == sent
    for message in arrived:
        document = json.loads(message.body)
        assert document["name"] == message.headers["certname"]
        titles = [r["title"] for r in document["resources"] if r["type"] == "Notify"]
        assert titles == [f"{document['name']} {number}" for number in range(1, 301)]
    assert messages(running.server.site.spool) == []
    assert running.server.problems()[before:] == []


def test_collecting_finds_exactly_what_it_should(
    running: Running, broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through JDBC, for every shape; a dropped export is gone; unchanged code is unchanged to the engine."""
    server = running.server
    with ExitStack() as stack:
        engine = Engine(
            broker.url(), running.database, "--workers", "1", "--writers", "1", log=tmp_path / "engine.log"
        )
        stack.callback(engine.kill)
        engine.wait_ready()
        published = 0
        seconds: list[float] = []

        def compile_(node: str, **facts: object) -> dict[str, Any]:
            nonlocal published
            published += 1
            started = time.monotonic()
            found = server.compile(node, str(uuid.uuid4()), **facts)
            seconds.append(time.monotonic() - started)
            return {"catalog": found}

        compile_("exporter1", keeps=True)
        compile_("exporter2")
        engine.wait_settled(published)
        for shape, (_, expected) in SHAPES.items():
            assert refs(compile_("collector", shape=shape), *TYPES) == expected, shape
        engine.wait_settled(published)
        compile_("exporter1", keeps=False)
        engine.wait_settled(published)
        assert refs(compile_("collector", shape="undef"), "Service_of") == ["Service_of[plain]"]
        before = engine.wait_settled(published)
        seconds.clear()
        for _ in range(10):
            compile_("collector", shape="nested, with override")
            engine.wait_settled(published)
        collecting_ms = statistics.median(seconds) * 1000
        after = engine.settled()
        assert after["stored"] - before["stored"] == 1
        assert after["unchanged"] - before["unchanged"] == 9
        seconds.clear()
        for _ in range(10):
            compile_("collector", shape="none")
        with capsys.disabled():
            print(
                f"\n{running.mode}, {broker.name}: a compile with one collector {collecting_ms:.0f} ms, "
                f"with none {statistics.median(seconds) * 1000:.0f} ms (medians of 10)"
            )
        engine.wait_settled(published)


@pytest.mark.parametrize(
    "behaviour", [None, temper.mute, temper.half_open], ids=["refused", "mute", "half open"]
)
def test_a_broker_that_is_away_costs_no_agent_its_catalog(
    running: Running, behaviour: temper.Behaviour | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every compile succeeds, and every catalog is in the spool when the JRuby instances have ended."""
    server = running.server
    with temper.broker_that(behaviour) as away:
        server.site.configure(broker=away, database=running.database, flush_timeout_s="100ms")
        server.flush_pool()
        server.compile("warm", str(uuid.uuid4()))
        what = behaviour.__name__ if behaviour else "refused"
        nodes = [f"{what.replace('_', '-')}{number}" for number in range(8)]
        seconds = []
        for node in nodes:
            started = time.monotonic()
            server.compile(node, str(uuid.uuid4()))
            seconds.append(time.monotonic() - started)
        server.flush_pool()
        until(lambda: set(nodes) <= waiting(server.site), "the spool has not got all messages")
    with capsys.disabled():
        print(
            f"\n{running.mode}, broker {what}: compile median {statistics.median(seconds) * 1000:.0f} ms, "
            f"slowest {max(seconds) * 1000:.0f} ms"
        )


def test_every_file_is_one_that_jruby_reads() -> None:
    """Also those that no request to a Puppet server loads (commands, plain Ruby's database connection)."""
    if shutil.which("jruby") is None:
        pytest.skip("no jruby: apt-get install jruby")
    files = sorted((MODULE / "lib").rglob("*.rb"))
    read = "require 'jruby'; ARGV.each { |file| JRuby.parse(File.read(file, encoding: 'UTF-8'), file) }; puts RUBY_VERSION"
    done = subprocess.run(
        ["jruby", "-e", read, *files], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("2.6"), "this JRuby is newer than puppetserver 7's: the check says nothing"


def test_a_database_that_is_away_fails_collecting_compiles_only(running: Running) -> None:
    """The agent is told which type could not be collected; who collects nothing gets its catalog."""
    server = running.server
    with temper.broker_that(None) as away:
        server.site.configure(broker=away, dbport=1, dbserver="127.0.0.1")
        server.flush_pool()
        server.compile("collector", str(uuid.uuid4()), shape="none")
        with pytest.raises(Refused, match="Could not collect exported Sshkey for collector"):
            server.compile("collector", str(uuid.uuid4()), shape="everything")


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)  # a restart takes long
def test_what_waited_is_delivered_after_a_restart(running: Running, broker: Broker) -> None:
    """Catalogs of an outage lie on disk; the next puppetserver delivers all of them, whichever instance wrote them."""
    server = running.server
    with temper.broker_that(None) as away:
        server.site.configure(broker=away, database=running.database, flush_timeout_s="100ms")
        server.flush_pool()
        for number in range(4):
            server.compile(f"late{number}", str(uuid.uuid4()))
        server.stop()
    left = len(messages(server.site.spool))
    assert waiting(server.site) >= {"late0", "late1", "late2", "late3"}
    server.site.configure(broker=broker.url(), database=running.database)
    server.start()
    server.compile("node", str(uuid.uuid4()))
    names = set()
    with Client(broker.port, USER, PASSWORD) as client:
        client.subscribe("/queue/catalog")
        for _ in range(left + 1):
            message = client.message()
            client.acknowledge(message)
            names.add(message.headers["certname"])
        client.disconnect()
    assert names >= {"late0", "late1", "late2", "late3", "node"}
    assert messages(server.site.spool) == []
