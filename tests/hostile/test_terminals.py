"""Nothing that a publisher, a log or another program wrote reaches a terminal raw."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import structlog

from ingest.observe.log import configure, show_traceback
from ingest.store.connection import Connection
from lab.store_model import Pipeline, resource, wire_body
from tests.core.test_printable import HARMFUL

EVIL = "".join(HARMFUL.values())
REPOSITORY = Path(__file__).parent.parent.parent


def ingest(*arguments: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "ingest", *arguments], stdout=stdout, stderr=subprocess.PIPE, check=False, timeout=60,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip


def is_harmless(text: bytes) -> bool:
    return all(line.isprintable() for line in text.decode().split("\n"))


def test_catalogs_are_shown_as_json_with_escapes(database: str, connection: Connection) -> None:
    """show, query exported, query who-has: printable, valid JSON, and the same values as were sent."""
    title = f"t{EVIL}"
    body = wire_body(
        "a.example.com",
        1,
        [resource(title, type_="Sshkey", exported=True, parameters={f"k{EVIL}": [EVIL, {EVIL: 1}]})],
    )
    Pipeline(connection).take(body)
    at = ("--database", database)
    shown = ingest("show", "a.example.com", *at).stdout
    exported = ingest("query", "exported", "--type", "Sshkey", *at).stdout
    who_has = ingest("query", "who-has", "Sshkey", title, *at).stdout
    for text in (shown, exported, who_has):
        assert is_harmless(text)
        assert text.count(b"\n") == 1
    assert json.loads(exported)["title"] == title
    assert json.loads(exported)["parameters"] == {f"k{EVIL}": [EVIL, {EVIL: 1}]}
    assert title in [one["title"] for one in json.loads(shown)["resources"]]


def test_the_quarantine_is_shown_harmlessly(database: str, connection: Connection) -> None:
    """list, show, and a body that is not for a terminal at all."""
    connection.execute(
        "INSERT INTO quarantine (digest, reason, detail, certname, headers, body, body_bytes)"
        " VALUES ('x', %s, %s, %s, %s, %s, 6)",
        [f"r{EVIL}", EVIL, EVIL, json.dumps({"certname": EVIL}), EVIL.encode() + b"\xff"],
    )
    at = ("--database", database)
    listed = ingest("quarantine", "list", *at).stdout
    assert listed.count(b"\n") == 1
    assert is_harmless(listed)
    shown = ingest("quarantine", "show", "1", *at).stdout
    assert is_harmless(shown)
    assert json.loads(shown)["certname"] == EVIL
    assert ingest("quarantine", "export", "1", *at).stdout == EVIL.encode() + b"\xff"
    ours, theirs = pty.openpty()
    try:
        done = ingest("quarantine", "export", "1", *at, stdout=theirs)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 5
    assert b"terminal" in done.stderr


@pytest.mark.parametrize("what", [EVIL, f"x{EVIL}y"])
def test_an_error_line_is_harmless(what: str) -> None:
    """Whatever was typed or read, the line that tells of it is one line."""
    for arguments in (
        ("show", "a", "--database", f"host=/{what}"),
        ("publish", what, "--queue-source", "stomp://127.0.0.1:1"),
        ("config", f"--{what}"),
        ("config", "--config", what),
        ("config", "--log-format", what),
        (what,),
    ):
        done = ingest(*arguments)
        assert done.returncode in (2, 3), arguments
        assert done.stderr.count(b"\n") == 1
        assert is_harmless(done.stderr)


def test_status_of_another_program_is_harmless() -> None:
    """What answers on the port need not be an engine."""
    document = {
        "health": {"healthy": True, "ready": False, "reasons": [EVIL]},
        "processes": {f"p{EVIL}": {f"m{EVIL}": 1.0}},
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        port = str(server.server_port)
        short, whole = (
            ingest("status", "--metrics-port", port),
            ingest("status", "--all", "--metrics-port", port),
        )
        server.shutdown()
    for done, lines in ((short, range(1, 13)), (whole, range(4, 5))):
        assert done.returncode == 0
        assert is_harmless(done.stdout)
        assert done.stdout.count(b"\n") in lines


@pytest.mark.parametrize("log_format", ["console", "json"])
@pytest.mark.parametrize(
    "value",
    [
        EVIL,
        [EVIL],
        {"k": EVIL},
        {EVIL: [{"k": (EVIL,)}]},
        ValueError(EVIL),
        {"stomp://u:geheim@h"},
        [b"geheim"],
    ],
    ids=["text", "list", "dictionary", "nested", "exception", "password", "bytes"],
)
def test_a_log_line_is_harmless(log_format: str, value: object) -> None:
    """At any depth, without passwords and bodies."""
    stream = io.StringIO()
    configure(log_format, "info", stream=stream)
    try:
        structlog.get_logger().info("something", reason=value)
    finally:
        structlog.reset_defaults()
    line = stream.getvalue().removesuffix("\n")
    assert line.isprintable()
    assert "geheim" not in line


def test_a_stack_trace_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    """A child that dies of something nobody thought of says so with a stranger's text in it."""
    show_traceback(ValueError, ValueError(f"at stomp://u:geheim@h {EVIL}"), None)
    said = capsys.readouterr().err
    assert "ValueError" in said
    assert "geheim" not in said
    assert is_harmless(said.encode())
