"""What anybody can read afterwards holds none of the secrets that were sent: the database, logs, metrics, commands."""

from __future__ import annotations

import base64
import itertools
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.store.connection import Connection
from lab.engine import Engine, publish, wait_for
from lab.servers import Postgres, embedded_broker, free_port
from lab.store_model import resource, wire_body
from tests.core.test_sensitive import FORMS, PLACES, SECRET, spelled

SECRETS = 200
QUIET = ("--quarantine-per-minute-max", "0", "--quarantine-messages-max", "0")


def secret_of(number: int) -> str:
    """What no escape changes, so that it is found in whatever it stands."""
    return f"s3cret{number:03d}k{number * 7919 % 1000:03d}z"


def traces(secret: str) -> Iterator[bytes]:
    """The ways in which it may be written."""
    raw = secret.encode()
    yield raw
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    for shift in range(3):
        coded = base64.b64encode(bytes(shift) + raw)
        yield coded[4 if shift else 0 : -4]
    yield "".join(f"\\u{ord(char):04x}" for char in secret).encode()
    yield "".join(f"\\\\u{ord(char):04x}" for char in secret).encode()
    yield "".join(f"%{ord(char):02X}" for char in secret).encode()
    yield secret.encode("utf-16-le")
    yield secret[::-1].encode()


def bodies(numbers: Iterator[int]) -> Iterator[bytes]:
    """Catalogs of all families and other messages, each with a secret of its own, whole or damaged."""
    places = [*PLACES, *["parameter", "list", "hash", "unknown member"] * 5]  # these are stored
    every = itertools.cycle(itertools.product(["plain", "spaced", "escaped", "not UTF-8"], FORMS, places))
    while True:
        number = next(numbers, None)
        if number is None:
            return
        spelling, form, place = next(itertools.islice(every, 46, 47))
        value = json.loads(json.dumps(FORMS[form]).replace(SECRET, secret_of(number)))
        certname = f"n{number}.example.com"
        member = {"type": "User", "title": "u", "exported": True} | PLACES[place](value)
        sections = {"resources": [member], "edges": []}
        wrapped = sections | {"resources": json.dumps([member])}
        wire = {"certname": certname, "version": "1", "producer_timestamp": "2026-01-01T00:00:00Z"}
        command = {"command": "replace catalog", "version": 9}
        documents: list[Any] = [
            {"name": certname, "version": 1} | sections,
            {"document_type": "Catalog", "data": {"name": certname} | sections},
            {"document_type": "Catalog", "data": {"name": certname} | wrapped},
            command | {"payload": wire | sections},
            command | {"payload": json.dumps(wire | sections)},
            {"name": certname, "edges": [{"source": "User[u]", "target": value}], "resources": sections["resources"]},
            {"command": "replace facts", "version": 5, "payload": {"certname": certname, "values": {"f": value}}},
            {"command": "store report", "version": 8, "payload": {"certname": certname, "resources": [value]}},
            {"name": certname, "resources": [member | {"parameters": {"p": secret_of(number)}, "sensitive_parameters": "p"}]},
            {"name": certname, "resources": [member | {"parameters": {"p": secret_of(number)}, "sensitive_parameters": ["p"]}],
             "edges": []},
        ]  # fmt: skip
        body = spelled(documents[number % len(documents)], spelling)
        end = body.find(secret_of(number).encode()) + 10
        damaged = (body, body, body[:-1], body, body, body[:end], body, body, body + b"x", b"\xff" + body)
        yield damaged[number // len(documents) % len(damaged)]


def command(*arguments: str) -> bytes:
    """What one prints, whatever becomes of it."""
    done = subprocess.run(
        [sys.executable, "-m", "ingest", *arguments], capture_output=True, timeout=60, check=False
    )
    return done.stdout + done.stderr


def test_two_hundred_secrets_are_nowhere(
    postgres: Postgres, database: str, connection: Connection, tmp_path: Path
) -> None:
    """In every form, in catalogs that are stored and messages that are quarantined, and as passwords of settings:
    neither a dump of the database nor any log, metric or command's output holds one of them, encoded or not."""
    sent = list(bodies(iter(range(SECRETS))))
    broker_secret, database_secret = secret_of(SECRETS), secret_of(SECRETS + 1)
    conninfo = f"{database} password={database_secret}"
    login = tmp_path / "login"
    login.write_text(f"ingest:{broker_secret}\n")
    login.chmod(0o600)
    with embedded_broker("--login-file", str(login)) as url:
        url = url.replace("://", f"://ingest:{broker_secret}@")
        engine = Engine(url, conninfo, *QUIET, "--log-level", "debug", log=tmp_path / "log")
        try:
            engine.wait_ready()
            publish(
                url, *sent, headers={"note": json.dumps({"__ptype": "Sensitive", "__pvalue": secret_of(0)})}
            )
            settled = engine.wait_settled(SECRETS)
            assert settled["stored"] > 40  # else nothing would be tested of the one half,
            assert settled["quarantined"] > 40  # or of the other
            flags = ("--queue-source", url, "--database", conninfo)
            found = {
                "log": engine.log.read_bytes(),
                "server's log": postgres.log().encode(),
                "metrics": urllib.request.urlopen(
                    f"http://127.0.0.1:{engine.port}/metrics", timeout=5
                ).read(),
                "status": json.dumps(engine.status()).encode(),
                "config": command("config", *flags),
                "list": command("quarantine", "list", "--limit", "1000", *flags),
                "exported": command("query", "exported", "--type", "User", *flags),
                "mistyped": command("config", "--database", f"host=h password = a {database_secret}")
                + command("show", "n", "--database", f"postgresql://u:1/{database_secret}@127.0.0.1/d")
                + command("run", "--queue-source", f"stomp://u:1/{broker_secret}@h", "--database", conninfo)
                + command("show", "n", *flags, "password", "=", "a", broker_secret),
            }
            rows: Any = connection.execute("SELECT id FROM quarantine ORDER BY id").fetchall()
            for (id_,) in rows[::10]:
                found[f"show {id_}"] = command("quarantine", "show", str(id_), *flags)
                found[f"export {id_}"] = command("quarantine", "export", str(id_), *flags)
            rows = connection.execute("SELECT certname FROM nodes ORDER BY id").fetchall()
            for (certname,) in rows[::10]:
                found[f"show {certname}"] = command("show", certname, *flags)
            assert engine.stop() == 0
            found["log at the end"] = engine.log.read_bytes()
        finally:
            engine.kill()
    dump = subprocess.run([postgres.bin / "pg_dump", database], capture_output=True, timeout=60, check=True)
    found["dump"] = dump.stdout
    assert b"n1.example.com" in found["dump"]
    for number in range(SECRETS + 2):
        for trace in traces(secret_of(number)):
            assert [where for where, text in found.items() if trace in text] == []


def test_traces_are_found() -> None:
    """The search finds what it is to find: within base64, hexadecimal and escapes, at any place."""
    secret = secret_of(5)
    for shift in range(6):
        text = b"x" * shift + secret.encode() + b"yz"
        for hidden in (text, base64.b64encode(text), text.hex().encode(), text.decode().encode("utf-16-le")):
            assert any(trace in hidden for trace in traces(secret))


class FromFile(Engine):
    """``ingest run`` with all that it needs in a file."""

    def __init__(self, toml: Path, log: Path) -> None:
        self.port = free_port()
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ingest", "run", "--config", toml, "--metrics-port", str(self.port),
                 "--log-format", "json"],
                stderr=file, env=os.environ | {"INGEST_GC_INTERVAL_S": "0"},
            )  # fmt: skip


def test_no_part_of_a_password_is_told_when_settings_are_read_again(
    broker: str, database: str, connection: Connection, tmp_path: Path
) -> None:
    """Addresses and conninfos that cannot be read: refused in a line that quotes nothing of them."""
    toml = tmp_path / "engine.toml"

    def write(queue: str, conninfo: str) -> None:
        toml.write_text(
            f"workers = 1\nqueue_source = {json.dumps(queue)}\ndatabase = {json.dumps(conninfo)}\n"
        )

    write(broker, database)
    engine = FromFile(toml, tmp_path / "log")
    try:
        engine.wait_ready()
        wrong = [
            (f"stomp://guest:{password}@127.0.0.1:61613", database)
            for password in (
                "tOp/SeCrEt",
                "12/SeCrEt",
                "SeCrEt?x",
                "SeCrEt#x",
                "12,SeCrEt",
                "a SeCrEt",
                "1[SeCrEt",
            )
        ]
        wrong += [
            (broker, conninfo)
            for conninfo in (
                "host=h password = a SeCrEt", "password='SeCrEt", "SeCrEt", "postgresql://u:SeCrEt%zz@h/d",
                "host=h pasword=SeCrEt", "postgresql://u:tOp/SeCrEt@h/d", "postgresql://u@h:SeCrEt/d",
            )
        ]  # fmt: skip
        for number, (queue, conninfo) in enumerate(wrong):
            write(queue, conninfo)
            os.kill(engine.process.pid, signal.SIGHUP)
            wait_for(
                lambda n=number: len(refusals(engine)) + reloads(engine) > n,
                engine,
                f"refused: {queue} {conninfo}",
            )
        write(broker, database)
        os.kill(engine.process.pid, signal.SIGHUP)
        publish(broker, wire_body("n.example.com", 1, [resource("/n")]))
        engine.wait_settled(1)
        assert engine.stop() == 0
    finally:
        engine.kill()
    log = engine.log.read_text()
    assert len(refusals(engine)) >= 10
    for part in ("SeCrEt", "tOp", "ecret"):
        assert part not in log


def refusals(engine: Engine) -> list[dict[str, Any]]:
    return [line for line in engine.lines() if line.get("event") == "reload_refused"]


def reloads(engine: Engine) -> int:
    return sum(line.get("event") == "reloaded" for line in engine.lines())


# Core dumps


def test_no_process_leaves_a_core_dump(broker: str, database: str, tmp_path: Path) -> None:
    """Neither the supervisor nor a child, also where dumps are piped to a program: nothing of their memory is in one."""
    engine = Engine(broker, database, "--workers", "1", log=tmp_path / "log")
    try:
        engine.wait_ready()
        for pid in (engine.process.pid, *engine.children().values()):
            assert int(Path(f"/proc/{pid}/coredump_filter").read_text(), 16) == 0
            (line,) = (
                one for one in Path(f"/proc/{pid}/limits").read_text().splitlines() if "core file" in one
            )
            assert line.split()[4:6] == ["0", "0"]
    finally:
        engine.kill()


CRASH = """
import os, resource, sys
from ingest.ipc.core_dumps import forbid_core_dumps
secret = b"-".join([b"s3cret"] * 1000)
if sys.argv[1] == "forbid":
    forbid_core_dumps()
resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
os.abort()
"""


def test_a_dump_that_is_made_all_the_same_holds_no_memory(tmp_path: Path) -> None:
    """With the limit lifted again, as for a dump that goes to a program: a password on the heap is not in it."""
    if os.geteuid() != 0:
        pytest.skip("only root may lift the limit again")
    holds = []
    for how in ("allow", "forbid"):
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        subprocess.run([sys.executable, "-c", CRASH, how], cwd=tmp_path, env=environment, check=False)
        cores = list(tmp_path.glob("core*"))
        if how == "allow" and not cores:
            pytest.skip(
                "this machine writes dumps elsewhere: " + Path("/proc/sys/kernel/core_pattern").read_text()
            )
        holds.append(any(b"s3cret-s3cret" in core.read_bytes() for core in cores))
        for core in cores:
            core.unlink()
    assert holds == [True, False]
