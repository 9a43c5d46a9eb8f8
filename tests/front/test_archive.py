"""Archives: what is exported and imported into an empty engine exports the same again, by command and over HTTP."""

from __future__ import annotations

import http.client
import io
import json
import os
import secrets
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ingest.cli.importing import Importing, Progressed
from ingest.config.settings import Config
from ingest.core.archive.tar import ArchiveReader, ArchiveWriter
from ingest.store.connection import connect
from lab import real_catalogs, real_facts
from lab.engine import Engine
from lab.front import ask
from lab.servers import Postgres
from lab.store_model import Pipeline, wire_body
from tests.front.conftest import Serve
from tests.front.odd_fleet import odd_fleet
from tests.front.test_clients import ask_and_wait
from tests.front.test_oracle import store

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """``ingest`` as a person types it."""

    def start(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ingest", *words, "--data-dir", str(tmp_path / "data")]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, env=os.environ, check=False
        )

    return start


@pytest.fixture
def full(database: str) -> str:
    """A database with the odd fleet, and what real Puppet and Facter made."""
    now = datetime.now(UTC)
    store(database, odd_fleet(now, for_puppetdb=False))
    with connect(database) as connection:
        pipeline = Pipeline(connection)
        for role in real_catalogs.ROLES:
            pipeline.take(real_catalogs.body(role, 1, "native"), received_at=now)
        for role in real_facts.ROLES:
            pipeline.take(real_facts.body(role, 1), received_at=now)
    return database


@pytest.fixture
def empty(postgres: Postgres, database: str) -> Iterator[str]:
    postgres.execute("postgres", "CREATE DATABASE second TEMPLATE template_ingest")
    yield postgres.conninfo("second")
    postgres.execute("postgres", "DROP DATABASE second WITH (FORCE)")


@pytest.fixture
def engine(broker: str, empty: str, tmp_path: Path) -> Iterator[Engine]:
    """Over the empty database."""
    started = Engine(broker, empty, "--writers", "1", "--workers", "1", log=tmp_path / "engine.log")
    started.wait_ready()
    yield started
    started.stop()


def members(archive: bytes) -> dict[str, bytes]:
    """By name, without when it was made; read by another program's library."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as opened:
        found = {}
        for member in opened:
            file = opened.extractfile(member)
            assert file is not None
            found[member.name] = file.read()
    found.pop("puppetdb-bak/export-metadata.json")
    return found


def made(*files: tuple[str, bytes]) -> bytes:
    writer = ArchiveWriter(0)
    return b"".join(writer.add(*file) for file in files) + writer.finish()


def facts(certname: str, day: int, **values: object) -> bytes:
    time = f"2026-11-{day:02}T10:00:00.000Z"
    return json.dumps(
        {"certname": certname, "environment": "production", "producer_timestamp": time, "values": values}
    ).encode()


def test_an_import_of_an_export_exports_the_same_again(
    run: Run, full: str, empty: str, broker: str, engine: Engine, tmp_path: Path
) -> None:
    """Catalogs, facts, packages, reports, inputs, expirations and deactivations, each to its last byte."""
    first, second = tmp_path / "first.tgz", tmp_path / "second.tgz"
    told = run("export", str(first), "--database", full)
    assert told.returncode == 0, told.stderr
    exported = members(first.read_bytes())
    assert "7 reports" in told.stdout
    assert "2 deactivate node" in told.stdout

    told = run("import", str(first), "--queue-source", broker)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout == run("export", str(tmp_path / "x.tgz"), "--database", full).stdout.replace(
        "exported", "imported"
    )
    engine.wait_settled(len(exported))
    assert run("export", str(second), "--database", empty).returncode == 0
    assert members(second.read_bytes()) == exported
    assert engine.settled()["quarantined"] == 0


def test_to_import_it_again_changes_nothing(
    run: Run, full: str, empty: str, broker: str, engine: Engine, tmp_path: Path
) -> None:
    """In whatever order its commands come: what is there is as new."""
    archive = tmp_path / "a.tgz"
    run("export", str(archive), "--database", full)
    files = members(archive.read_bytes())
    backwards = tmp_path / "backwards.tgz"
    backwards.write_bytes(made(*reversed(files.items())))
    for count, one in enumerate((backwards, archive), start=1):
        assert run("import", str(one), "--queue-source", broker).returncode == 0
        engine.wait_settled(count * len(files))
    again = tmp_path / "again.tgz"
    run("export", str(again), "--database", empty)
    assert members(again.read_bytes()) == files


def test_two_commands_of_one_node_come_in_any_order(
    run: Run, empty: str, broker: str, engine: Engine, tmp_path: Path
) -> None:
    """The newer one counts."""
    files = [
        ("puppetdb-bak/facts/a.json", facts("a", 2, x=2)),
        ("puppetdb-bak/facts/b.json", facts("a", 1, x=1)),
        ("puppetdb-bak/facts/c.json", facts("c", 1, x=1)),
        ("puppetdb-bak/facts/d.json", facts("c", 2, x=2)),
    ]
    archive = tmp_path / "a.tgz"
    archive.write_bytes(made(*files))
    assert run("import", str(archive), "--queue-source", broker).returncode == 0
    engine.wait_settled(4)
    with psycopg.connect(empty) as connection:
        assert connection.execute("SELECT value FROM facts").fetchall() == [(2,), (2,)]


def test_what_does_not_fit_is_named_and_counted_and_the_rest_goes_in(
    run: Run, empty: str, broker: str, engine: Engine, tmp_path: Path
) -> None:
    """Wrong JSON, wrong types, names of other programs; links, and names that lead out of the archive, lead nowhere."""
    archive = tmp_path / "a.tgz"
    with tarfile.open(archive, "w:gz") as opened:

        def add(name: str, body: bytes, **more: object) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(body)
            for attribute, value in more.items():
                setattr(member, attribute, value)
            opened.addfile(member, io.BytesIO(body))

        add("puppetdb-bak/facts/good.json", facts("good", 1, x=1))
        add("puppetdb-bak/facts/torn.json", b'{"certname": "torn", "values": {"a')
        add("puppetdb-bak/facts/two.json", b'{"certname": "two"}, "command": "deactivate node"')
        add("puppetdb-bak/facts/array.json", b"[]")
        add("puppetdb-bak/facts/nobody.json", b"{}")
        add("puppetdb-bak/reports/r-1.json", b'{"certname": "r", "start_time": "yesterday"}')
        add("puppetdb-bak/catalogs/c-1.json", b'{"certname": "c", "resources": 7}')
        add("../../etc/passwd", b"root::0:0")
        add("/etc/passwd", b"root::0:0")
        add("puppetdb-bak/facts/link.json", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(
            "puppetdb-bak/facts/hard.json", b"", type=tarfile.LNKTYPE, linkname="puppetdb-bak/facts/good.json"
        )
        add("puppetdb-bak/facts", b"", type=tarfile.DIRTYPE)
        add("puppetdb-bak/facts/../../../up.json", facts("up", 1, x=1))
        add("puppetdb-bak/facts/last.json", facts("last", 1, x=1))
    told = run("import", str(archive), "--queue-source", broker)
    assert told.returncode == 5
    assert told.stdout == "imported 3 facts\n"
    assert "10 did not fit" in told.stderr
    for name in ("torn", "two", "array", "nobody", "r-1", "c-1", "etc/passwd", "link", "hard"):
        assert name in told.stderr
    assert "Traceback" not in told.stderr
    engine.wait_settled(3)
    with psycopg.connect(empty) as connection:
        found = connection.execute("SELECT certname FROM facts ORDER BY 1").fetchall()
    assert found == [("good",), ("last",), ("up",)]


def test_an_import_that_broke_off_goes_on_where_it_stopped(
    run: Run, empty: str, broker: str, engine: Engine, tmp_path: Path
) -> None:
    """What came in counts, the archive's end is missed; whole again, and interrupted by a broker that is away, it goes on."""
    files = [
        (f"puppetdb-bak/facts/{number}.json", facts(f"n{number}", 1, x=os.urandom(500).hex()))
        for number in range(200)
    ]
    whole = made(*files)
    archive = tmp_path / "a.tgz"
    archive.write_bytes(whole[: len(whole) // 2])
    told = run("import", str(archive), "--queue-source", broker)
    assert told.returncode == 5
    assert "ends in the middle" in told.stderr
    came = int(told.stdout.split()[1])
    assert 64 < came < 200
    engine.wait_settled(came)
    os.utime(archive)  # another archive: it begins anew
    archive.write_bytes(whole)
    told = run("import", str(archive), "--queue-source", broker)
    assert (told.returncode, told.stdout) == (0, "imported 200 facts\n")
    assert "going on" not in told.stderr
    engine.wait_settled(came + 200)


def test_a_killed_import_goes_on_where_it_stopped(
    run: Run, broker: str, engine: Engine, tmp_path: Path
) -> None:
    """What has the broker's receipt is not sent again, unless one asks for that."""
    files = [
        (f"puppetdb-bak/facts/{number}.json", facts(f"n{number}", 1, x=os.urandom(500).hex()))
        for number in range(200)
    ]
    whole = made(*files)
    archive = tmp_path / "a.tgz"
    archive.write_bytes(whole)
    config = Config(queue_source=broker, data_dir=str(tmp_path / "data"))
    with archive.open("rb") as source:
        killed = Importing(config, Progressed(config, str(archive), source), lambda: datetime.now(UTC))
        killed.feed(whole[: len(whole) // 2])
        killed.close()
        came = Progressed(config, str(archive), source).members
    assert came in (64, 128)
    told = run("import", str(archive), "--queue-source", broker)
    assert (told.returncode, told.stdout) == (0, "imported 200 facts\n")
    assert f"going on after {came} files" in told.stderr
    engine.wait_settled(200)
    told = run("import", str(archive), "--again", "--queue-source", broker)
    assert (told.returncode, told.stderr) == (0, "")
    engine.wait_settled(400)
    assert sum(engine.settled().values()) == 400


def test_an_import_without_a_broker_is_told_to_come_again(serve: Serve) -> None:
    """503 over HTTP, with what is in already."""
    front = serve("--queue-source", "stomp://127.0.0.1:9")
    archive = made(("puppetdb-bak/facts/a.json", facts("a", 1, x=1)))
    answer = ask(front.port, "/pdb/admin/v1/archive", method="POST", **form(archive))
    assert answer.status == 503
    assert "the broker is away" in answer.json["error"]


def test_the_same_over_http(
    run: Run, full: str, empty: str, broker: str, engine: Engine, serve: Serve, tmp_path: Path
) -> None:
    """As ``puppet db export`` and ``puppet db import`` ask for it; a profile that there is not is told."""
    front = serve()
    got = front.get("/pdb/admin/v1/archive")
    assert got.status == 200
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["content-disposition"].startswith("attachment; filename=")
    files = members(got.body)
    assert front.get("/pdb/admin/v1/archive", {"anonymization_profile": "half"}).status == 400

    posted = ask(front.port, "/pdb/admin/v1/archive", method="POST", **form(got.body))
    assert posted.status == 200, posted.text
    assert posted.json["ok"] is True
    assert (sum(posted.json["imported"].values()), posted.json["unfit"]) == (len(files), {})
    engine.wait_settled(len(files))
    second = tmp_path / "second.tgz"
    run("export", str(second), "--database", empty)
    assert members(second.read_bytes()) == files


def test_who_takes_an_archive_slowly_keeps_no_connection(serve: Serve, database: str) -> None:
    """What he has not taken yet is put away; others are answered, and get archives too."""
    with connect(database) as connection:
        large = {"type": "File", "title": "x", "exported": False, "tags": [], "parameters": {}}
        for minute in range(4):  # what does not become smaller by compression
            large["parameters"] = {"content": secrets.token_hex(2_000_000)}
            Pipeline(connection).take(wire_body(f"n{minute}", minute, [large]))
    front = serve("--http-queries-max", "1", "--http-waiting-s", "60")
    path = "/pdb/admin/v1/archive"
    slow = [ask_and_wait(front.port, path) for _ in range(3)]
    assert front.get("/pdb/query/v4/nodes", timeout_s=30).status == 200
    statuses = []
    for client in slow:
        answer = http.client.HTTPResponse(client)
        answer.begin()
        with client, answer:
            statuses.append(answer.status)
            assert answer.status != 200 or len(members(answer.read())) == 4
    assert sorted(statuses) == [200, 200, 503]


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"not gzip at all", 400, "not gzip"),
        (made(("puppetdb-bak/facts/a.json", facts("a", 1, x=1)))[:-30], 400, "ends in the middle"),
        (b"", 400, "empty"),
        (made(("puppetdb-bak/facts/a.json", b"{")), 200, "unreadable"),
    ],
)
def test_an_archive_that_is_broken_is_told(serve: Serve, body: bytes, status: int, word: str) -> None:
    """In words, and with what came in before."""
    answer = ask(serve().port, "/pdb/admin/v1/archive", method="POST", **form(body))
    assert answer.status == status, answer.text
    assert word in answer.text


def test_what_is_no_form_is_told(serve: Serve) -> None:
    """Each in words that name it."""
    front = serve()
    path = "/pdb/admin/v1/archive"
    assert ask(front.port, path, method="POST", body=b"x").status == 415
    headers = {"Content-Type": "multipart/form-data"}
    assert ask(front.port, path, method="POST", body=b"x", headers=headers).status == 400
    assert ask(front.port, path, method="POST", **form(b"x", name="other")).status == 400
    assert ask(front.port, path, method="DELETE").status == 405


def test_a_role_that_may_only_read_exports(full: str, postgres: Postgres, serve: Serve, run: Run) -> None:
    """As queries: what ``migrate --grant-serve-to`` grants is enough."""
    postgres.execute("postgres", "CREATE ROLE archive_reader LOGIN")
    try:
        granted = run("migrate", "--grant-serve-to", "archive_reader", "--database", full)
        assert granted.returncode == 0, granted.stderr
        reader = full.replace("user=postgres", "user=archive_reader")
        got = serve("--http-database", reader).get("/pdb/admin/v1/archive")
        assert got.status == 200
        assert any("/reports/" in name for name in members(got.body))
    finally:
        for statement in ("DROP OWNED BY archive_reader", "DROP ROLE archive_reader"):
            postgres.execute(full.rpartition("dbname=")[2], statement)


@pytest.mark.parametrize("profile", ["low", "moderate", "full"])
def test_what_is_anonymised_fits(run: Run, full: str, tmp_path: Path, profile: str) -> None:
    """As many files, no name of a node, and each of them a command that is understood."""
    from ingest.engine.archiving import Inspector, Problem

    plain, hidden = tmp_path / "plain.tgz", tmp_path / "hidden.tgz"
    run("export", str(plain), "--database", full)
    assert run("export", str(hidden), "--database", full, "--anonymize", profile).returncode == 0
    files = members(hidden.read_bytes())
    assert len(files) == len(members(plain.read_bytes()))
    assert not [name for name in files if "web-1" in name or "odd" in name]
    if profile == "full":
        assert not [name for name, body in files.items() if b"web-1" in body or b"apache" in body.lower()]
    inspector = Inspector(Config())
    reader = ArchiveReader(10**8)
    looked = [inspector.look(member, datetime.now(UTC)) for member in reader.feed(hidden.read_bytes())]
    assert [one for one in looked if isinstance(one, Problem)] == []


def form(archive: bytes, name: str = "archive") -> dict[str, Any]:
    boundary = "------------------------0123456789"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="a.tgz"\r\n'
    body = f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + archive
    body += f"\r\n--{boundary}--\r\n".encode()
    return {"body": body, "headers": {"Content-Type": f"multipart/form-data; boundary={boundary}"}}
