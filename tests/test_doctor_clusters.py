"""``ingest doctor`` on clusters: lists of hosts, standbys, replicas, engines of different versions, queues that are copied."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ingest.config.settings import Config
from ingest.engine.examination import examine_all
from ingest.engine.examining_cluster import (
    host_findings,
    member_findings,
    patroni_findings,
    replica_finding,
    version_findings,
)
from ingest.engine.examining_queues import (
    destination_findings,
    node_findings,
    queue_findings,
    silence_findings,
)
from ingest.engine.finding import Finding, State
from ingest.engine.surroundings import Surroundings
from ingest.store import patroni
from ingest.store.connection import connect
from ingest.store.engines import at_work
from ingest.store.examining import Asked, Member
from ingest.store.hosts import Host, Standing
from ingest.store.node.freshness import fleet_freshness
from ingest.transport.stomp import management
from lab.servers import Postgres, free_port

CONFIG = Config(metrics_port=0)
PRIMARY = Member(
    is_standby=False, synchronous_names="", standbys=2, synchronous=0, hidden=0, wal_bytes=9_000_000, behind_s=0.0,
    receives=False, can_rewind=True,
)  # fmt: skip
REPLICA = PRIMARY._replace(is_standby=True, standbys=0, receives=True)


def about(what: str, found: Iterator[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.what == what]


def states(found: Iterator[Finding]) -> list[str]:
    listed = list(found)
    assert all(finding.remedy or finding.state is State.OK for finding in listed)
    assert all("\n" not in finding.text + finding.remedy for finding in listed)
    return [str(finding.state) for finding in listed]


# The brokers


@pytest.mark.parametrize(
    ("heartbeat_s", "brokers", "said"),
    [(10.0, 3, "after 20 s"), (0.0, 2, "by nobody"), (3.0, 3, ""), (10.0, 1, ""), (0.0, 1, "")],
)
def test_how_long_a_silent_one_of_several_brokers_is_waited_for(
    heartbeat_s: float, brokers: int, said: str
) -> None:
    found = list(silence_findings(heartbeat_s, brokers))
    assert states(iter(found)) == ["note"] * bool(said)
    assert all(said in each.text and "heartbeat_s = 3" in each.remedy for each in found)


def test_a_list_of_brokers_is_asked_for_its_heart_beats() -> None:
    away = f"stomp://127.0.0.1:{free_port()},stomp://127.0.0.1:{free_port()}"
    for heartbeat_s, count in ((10.0, 1), (3.0, 0)):
        config = msgspec.structs.replace(
            CONFIG, queue_source=away, heartbeat_s=heartbeat_s, connect_timeout_s=0.5
        )
        found = [
            each for each in about("broker", examine_all(config, Surroundings())) if "silent" in each.text
        ]
        assert len(found) == count


# The database


@pytest.mark.parametrize(
    ("target", "said"),
    [("", "no target_session_attrs"), ("any", "target_session_attrs=any"), ("prefer-standby", "prefer-standby"),
     ("read-write", ""), ("primary", "")],
)  # fmt: skip
def test_a_list_of_hosts_that_may_lead_to_a_standby(database: str, target: str, said: str) -> None:
    """No attribute is a note, because ours is read-write then; one that takes standbys is wrong."""
    config = msgspec.structs.replace(CONFIG, database=twice(database, target))
    found = [
        each for each in about("hosts", examine_all(config, Surroundings())) if "target_session" in each.text
    ]
    assert len(found) == bool(said)
    for finding in found:
        assert said in finding.text
        assert "target_session_attrs=read-write" in finding.remedy
        assert finding.state == ("wrong" if target else "note")


def twice(database: str, target: str, second_port: int = 0) -> str:
    """The same server as two hosts, or one that is away."""
    parts = dict(part.split("=", 1) for part in database.split())
    parts["host"] = f"{parts['host']},127.0.0.1"
    parts["port"] = f"{parts['port']},{second_port or parts['port']}"
    if target:
        parts["target_session_attrs"] = target
    return " ".join(f"{name}={value}" for name, value in parts.items())


def test_a_host_of_the_list_that_is_away(database: str) -> None:
    """The engine is content with the other one, until that fails."""
    port = free_port()
    config = msgspec.structs.replace(CONFIG, database=twice(database, "read-write", port))
    found = about("hosts", examine_all(config, Surroundings()))
    assert [finding.state for finding in found] == [State.AWAY]
    assert f"127.0.0.1:{port}" in found[0].text


def test_one_host_is_no_list(database: str) -> None:
    """Nothing is said of hosts, nor that commits wait for nobody."""
    found = list(examine_all(msgspec.structs.replace(CONFIG, database=database), Surroundings()))
    assert not [finding for finding in found if finding.what in ("hosts", "standbys", "replica")]


@pytest.mark.parametrize(
    ("standings", "expected"),
    [
        ([Standing(True, 3, True), Standing(False, 3, True)], ["ok"]),
        ([Standing(True, 3, True), Standing(True, 4, True)], ["wrong"]),
        ([Standing(True, 3, True), None, Standing(True, 4, False)], ["away", "wrong"]),
        ([Standing(False, 3, True), Standing(False, 3, True)], ["away"]),
        ([None, None], ["away", "away"]),
    ],
)
def test_two_primaries_or_none(standings: list[Standing | None], expected: list[str]) -> None:
    """An orphan beside the promoted one; a cluster between two primaries."""
    asked = [
        Asked(Host(f"db{place}", "", "5432"), standing, "" if standing else "no answer")
        for place, standing in enumerate(standings)
    ]
    assert states(host_findings(asked)) == expected


@pytest.mark.parametrize(
    ("names", "synchronous", "hidden", "expected"),
    [
        ("", 0, 0, ["note"]), ("m1", 1, 0, ["ok"]), ("m1", 0, 0, ["wrong"]), ("*", 0, 2, ["note"]),
        ('FIRST 2 (m1, "m2", m3)', 1, 0, ["wrong"]), ("ANY 2 (m1, m2, m3)", 2, 0, ["ok"]), ("2 (*)", 1, 1, ["note"]),
        ("any 1(m1,m2)", 0, 0, ["wrong"]),
    ],
)  # fmt: skip
def test_a_commit_that_waits_for_standbys(
    names: str, synchronous: int, hidden: int, expected: list[str]
) -> None:
    """Asked for and attached; asked for and not there; not to be seen by this role; not asked for."""
    member = PRIMARY._replace(synchronous_names=names, synchronous=synchronous, hidden=hidden)
    assert states(member_findings(member, hosts=3)) == expected
    assert states(member_findings(member, hosts=1)) == (expected if names else [])


@pytest.mark.parametrize(
    ("hosts", "standbys", "can_rewind", "said"),
    [(3, 0, False, 1), (1, 2, False, 1), (1, 0, False, 0), (3, 2, True, 0)],
)
def test_a_primary_that_cannot_be_rewound(hosts: int, standbys: int, can_rewind: bool, said: int) -> None:
    """Matters to who has somebody to fail over to."""
    member = PRIMARY._replace(standbys=standbys, can_rewind=can_rewind)
    found = [each for each in member_findings(member, hosts) if "pg_rewind" in each.text]
    assert states(iter(found)) == ["note"] * said


@pytest.mark.parametrize(("setting", "said"), [("on", False), ("off", True)])
def test_a_server_says_whether_it_can_be_rewound(setting: str, said: bool) -> None:
    """A real one, without data checksums, named twice: with wal_log_hints and without."""
    directory = Path(tempfile.mkdtemp(prefix="ingest-postgresql-"))
    directory.chmod(0o755)
    server = Postgres(directory)
    try:
        server.start(wal_log_hints=setting)
        config = msgspec.structs.replace(CONFIG, database=twice(server.conninfo("postgres"), "read-write"))
        found = about("standbys", examine_all(config, Surroundings()))
    finally:
        server.stop()
        shutil.rmtree(directory)
    assert any("pg_rewind" in each.text for each in found) == said


PATRONI = {"ttl": 20, "synchronous_mode": True, "postgresql": {"use_pg_rewind": True}}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (PATRONI, ["ok"]),
        (PATRONI | {"pause": True}, ["wrong"]),
        (PATRONI | {"postgresql": {}}, ["note"]),
        (PATRONI | {"postgresql": None, "synchronous_mode": False}, ["note", "note"]),
        ({"ttl": "x", "synchronous_mode": "on", "postgresql": {"use_pg_rewind": True}}, ["ok"]),
    ],
)
def test_what_patroni_is_told(told: Mapping[str, Any], expected: list[str]) -> None:
    """Paused, without pg_rewind, asynchronous; or as docs/clusters.md has it."""
    assert states(patroni_findings(told)) == expected


class Patroni(BaseHTTPRequestHandler):
    """As it answers to everybody, and says no more than this."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/config" else 404)
        self.end_headers()
        self.wfile.write(json.dumps(PATRONI | {"pause": True}).encode())

    def log_message(self, *_: Any) -> None:
        """Not to the terminal."""


def test_patroni_is_asked_where_there_is_one(monkeypatch: pytest.MonkeyPatch, database: str) -> None:
    """Beside a host of the list; who is none, or is not there, is no finding."""
    config = msgspec.structs.replace(CONFIG, database=twice(database, "read-write"))
    for handler, said in ((Patroni, 1), (Management, 0)):
        with answering(handler) as port:
            monkeypatch.setattr(patroni, "PORT", port)
            found = about("patroni", examine_all(config, Surroundings()))
        assert len(found) == said
        assert all("paused" in each.text for each in found)
    monkeypatch.setattr(patroni, "PORT", free_port())
    assert about("patroni", examine_all(config, Surroundings())) == []


@pytest.fixture
def waiting() -> Iterator[Postgres]:
    """A server whose commits wait for a standby that is not there."""
    directory = Path(tempfile.mkdtemp(prefix="ingest-postgresql-"))
    directory.chmod(0o755)
    server = Postgres(directory)
    try:
        server.start(synchronous_standby_names="FIRST 1 (nobody)")
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory)


def test_synchronous_replication_without_a_standby(waiting: Postgres) -> None:
    """Said by a real server, to which nothing can be written just now."""
    config = msgspec.structs.replace(CONFIG, database=waiting.conninfo("postgres"))
    (found,) = about("standbys", examine_all(config, Surroundings()))
    assert found.state is State.WRONG
    assert "nobody" in found.text


@pytest.mark.parametrize(
    ("member", "primary", "state"),
    [
        (PRIMARY, PRIMARY, "ok"),
        (REPLICA, PRIMARY, "ok"),
        (REPLICA._replace(behind_s=86400.0), PRIMARY, "ok"),  # nothing was written since
        (REPLICA._replace(wal_bytes=0, behind_s=2.0), PRIMARY, "ok"),
        (REPLICA._replace(wal_bytes=0, behind_s=30.0), PRIMARY, "note"),
        (REPLICA._replace(wal_bytes=0, behind_s=3600.0), PRIMARY, "wrong"),
        (REPLICA._replace(receives=False, behind_s=5.0), PRIMARY, "wrong"),
    ],
)
def test_a_replica_that_is_behind(member: Member, primary: Member, state: str) -> None:
    """By what is to be replayed, not by the age of a transaction alone: an idle primary's is old, too."""
    assert states(iter([replica_finding(member, primary)])) == [state]


def test_the_fronts_database_is_looked_at(database: str) -> None:
    """Where it has one of its own; one that is away says so."""
    for conninfo, state in (
        (database, State.OK),
        (f"host=127.0.0.1 port={free_port()} dbname=x", State.AWAY),
    ):
        config = msgspec.structs.replace(CONFIG, database=database, http_database=conninfo)
        assert [each.state for each in about("replica", examine_all(config, Surroundings()))] == [state]


# Engines


def test_engines_of_two_versions_on_one_database(database: str) -> None:
    """Their sessions tell: how many of each, and one of a version that does not say it. Other programs are none."""
    names = [
        "ingest writer-0 9.9.9",
        "ingest writer-1 9.9.9",
        "ingest writer-0 9.9.9",
        "ingest writer-0",
        "ingest serve",
    ]
    opened = [connect(database, application_name=name) for name in names]
    try:
        assert at_work(opened[0]) == {"9.9.9": 2, None: 1}
        config = msgspec.structs.replace(CONFIG, database=database)
        (found,) = about("engines", examine_all(config, Surroundings()))
    finally:
        for connection in opened:
            connection.close()
    assert found.state is State.NOTE
    assert "2 of 9.9.9, 1 of an earlier version" in found.text


def test_how_many_engines_is_part_of_the_fleet(connection: Any, database: str) -> None:
    """What ``ingest status`` shows."""
    assert fleet_freshness(connection)["engines"] == 0
    with connect(database, application_name="ingest writer-0 1.0.0"):
        assert fleet_freshness(connection)["engines"] == 1


@pytest.mark.parametrize(
    ("engines", "expected"),
    [({}, []), ({"1.0": 3}, ["ok"]), ({"1.0": 2, "1.1": 1}, ["note"]), ({None: 2}, ["ok"])],
)
def test_versions(engines: dict[str | None, int], expected: list[str]) -> None:
    """One version is as it should be."""
    assert states(version_findings(engines, "1.1")) == expected


# Queues


@pytest.mark.parametrize(
    ("destinations", "brokers", "expected"),
    [(["/queue/catalog", "/queue/facts"], 3, ["wrong"]), (["/queue/catalog"], 1, []), (["/amq/queue/catalog"], 3, []),
     (["/amq/queue/catalog", "/queue/facts"], 2, ["wrong"]), (["/topic/x"], 3, [])],
)  # fmt: skip
def test_a_destination_that_declares_a_classic_queue(
    destinations: list[str], brokers: int, expected: list[str]
) -> None:
    """At several brokers it would live on one of them."""
    found = list(destination_findings(destinations, brokers))
    assert states(iter(found)) == expected
    assert all("/amq/queue/" in finding.remedy for finding in found)


QUORUM = {"type": "quorum", "members": ["a", "b", "c"], "arguments": {}, "effective_policy_definition": []}
TARGET = {"dead-letter-exchange": "", "dead-letter-routing-key": "dropped"}


@pytest.mark.parametrize(
    ("kept", "brokers", "expected"),
    [
        ({"type": "classic"}, 1, []),
        ({"type": "classic"}, 3, ["wrong"]),
        (QUORUM, 3, ["ok"]),
        (QUORUM | {"members": ["a"]}, 3, ["wrong", "ok"]),
        (QUORUM | {"members": ["a"]}, 1, ["ok"]),
        (QUORUM | {"effective_policy_definition": {"delivery-limit": 3} | TARGET}, 3, ["note"]),
        (QUORUM | {"arguments": {"x-delivery-limit": 5}}, 3, ["note", "note"]),
        (QUORUM | {"effective_policy_definition": {"delivery-limit": 50}}, 3, ["note"]),
        (QUORUM | {"effective_policy_definition": {"delivery-limit": 50} | TARGET}, 3, ["ok"]),
        (QUORUM | {"effective_policy_definition": {"delivery-limit": "many"}, "members": 3}, 3, ["ok"]),
        ({}, 3, ["wrong"]),
    ],
)
def test_what_a_queue_is(kept: Mapping[str, Any], brokers: int, expected: list[str]) -> None:
    """Classic, with too few members, with a low delivery-limit by policy or argument, or with one and nobody who keeps what
    goes beyond; or as it should be."""
    assert states(queue_findings("catalog", kept, brokers)) == expected


NODE = {"name": "r1@b1", "running": True, "partitions": [], "disk_free_alarm": False, "mem_alarm": False}


@pytest.mark.parametrize(
    ("nodes", "brokers", "expected"),
    [
        ([], 3, []),
        ([NODE], 1, []),
        ([NODE] * 3, 3, ["ok"]),
        ([NODE] * 3, 1, ["note"]),
        ([NODE] * 2, 2, ["note", "ok"]),
        ([NODE, NODE, NODE | {"running": False}], 3, ["away"]),
        ([NODE, NODE, NODE | {"partitions": ["r1@b1"]}], 3, ["wrong", "ok"]),
        ([NODE | {"disk_free_alarm": True, "mem_alarm": True}], 1, ["wrong", "wrong"]),
        ([{}, {"partitions": "x"}, {}], 3, ["wrong"]),
    ],
)
def test_what_the_nodes_of_a_cluster_are(
    nodes: list[Mapping[str, Any]], brokers: int, expected: list[str]
) -> None:
    """One is away, was cut off, or has an alarm; two are too few; some are not named; or all run."""
    assert states(node_findings(nodes, brokers)) == expected


@contextmanager
def answering(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Management(BaseHTTPRequestHandler):
    """As RabbitMQ's, for the login u:p."""

    def do_GET(self) -> None:
        known: dict[str, Any] = {
            "/api/queues/%2F/catalog": QUORUM
            | {"arguments": {"x-delivery-limit": 3, "x-dead-letter-exchange": ""}},
            "/api/nodes": [NODE | {"partitions": ["r2@b2"]}],
        }
        is_known = self.headers["Authorization"] == "Basic dTpw" and self.path in known
        body = json.dumps(known[self.path] if is_known else {"error": "x"}).encode()
        self.send_response(200 if is_known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Not to the terminal."""


@pytest.mark.parametrize(("login", "said"), [("u:p@", "more than 3 times"), ("u:x@", ""), ("", "")])
def test_management_is_asked_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, login: str, said: str
) -> None:
    """With the broker's own login; who is refused, or has none, is told nothing of queues."""
    with rabbit() as port, answering(Management) as management_port:
        monkeypatch.setattr(management, "PORT", management_port)
        config = msgspec.structs.replace(
            CONFIG, queue_source=f"stomp://{login}127.0.0.1:{port}", destination="/amq/queue/catalog"
        )
        told = list(examine_all(config, Surroundings()))
    found = about("queues", iter(told))
    assert len(found) == bool(said)
    assert all(said in finding.text for finding in found)
    assert ["cut off from r2@b2" in each.text for each in about("nodes", iter(told))] == [True] * bool(said)


def test_no_management_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most brokers have it on another address, or not at all."""
    monkeypatch.setattr(management, "PORT", free_port())
    with rabbit() as port:
        config = msgspec.structs.replace(CONFIG, queue_source=f"stomp://u:p@127.0.0.1:{port}")
        assert about("queues", examine_all(config, Surroundings())) == []


@contextmanager
def rabbit() -> Iterator[int]:
    """A port at which everybody is let in, by what calls itself RabbitMQ."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            client.recv(65536)
            client.sendall(b"CONNECTED\nversion:1.2\nserver:RabbitMQ/3.13.7\n\n\0")
            client.recv(65536)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        thread.join()
        listener.close()
