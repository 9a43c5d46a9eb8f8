"""The real command: what it prints, the one line when it fails, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from ingest.cli.watching import number_lines
from ingest.core.metrics import Metric
from ingest.ipc.process_metrics import MetricsTable
from ingest.observe.exposition import Health, serve
from ingest.store.connection import Connection
from ingest.transport.publisher import headers_of
from lab import real_catalogs as corpus
from lab.servers import embedded_broker, free_port

INGEST = [sys.executable, "-m", "ingest"]
NOWHERE = "stomp://u:geheim@127.0.0.1:1"  # tcpmux: nobody listens there


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def broker() -> Iterator[str]:
    with embedded_broker() as url:
        yield url


def ingest(
    *arguments: str, stdin: bytes = b"", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*INGEST, *arguments],
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)} | (environment or {}),
    )


def complaint(done: subprocess.CompletedProcess[bytes], code: int) -> str:
    """The one line of a command that failed as documented."""
    text = done.stderr.decode()
    assert done.returncode == code, text
    assert text.count("\n") == 1, text
    assert text.startswith("ingest: ")
    assert "geheim" not in text
    return text


# Failing


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["config", "--workers", "many"], 2, "--workers"),
        (["config", "--workrs", "2"], 2, "--workrs"),
        (["confg"], 2, "confg"),
        (["config", "--config", "nowhere.toml"], 2, "--config"),
        (["config", "--puppet-conf", "nowhere.conf"], 2, "--puppet-conf"),
        (["query", "exported"], 2, "--type"),
        (["publish"], 2, "FILE"),
        (["publish", "-", "--queue-source", NOWHERE], 3, "--queue-source"),
        (["publish", "-", "--queue-source", "http://u:geheim@h"], 2, "--queue-source"),
        (["publish", "-", "--queue-source", "stomp://h", "--queue-type", "kafka"], 2, "stomp"),
        (["publish", "-", "--queue-source", "stomp://h", "--header", "x"], 2, "--header"),
        (["publish", "-"], 2, "--queue-source"),
        (["show", "a"], 2, "--database"),
        (["migrate", "--database", "host=127.0.0.1 port=1 password=geheim"], 3, "--database"),
        (["status", "--metrics-port", "1"], 3, "--metrics-port"),
        (["demo", "--nodes", "0"], 2, "--nodes"),
    ],
)
def test_a_failure_is_one_line_and_a_documented_code(arguments: list[str], code: int, named: str) -> None:
    """It names what to change, shows no password and no stack trace."""
    assert named in complaint(ingest(*arguments), code)


def test_an_unreadable_file_is_one_clear_line(broker: str) -> None:
    """The line names the file."""
    assert "nowhere.json" in complaint(ingest("publish", "nowhere.json", "--queue-source", broker), 2)


def test_a_database_that_does_not_exist_is_one_clear_line(database: str) -> None:
    """It is a wrong setting, not an outage."""
    done = ingest("show", "a", "--database", f"{database}_not")
    assert "--database" in complaint(done, 2)


def test_what_is_not_there_is_refused(database: str) -> None:
    """An unknown node or number: the line says so."""
    assert "a.example.com" in complaint(ingest("show", "a.example.com", "--database", database), 5)
    assert "99" in complaint(ingest("quarantine", "show", "99", "--database", database), 5)


def test_what_nobody_thought_of_is_one_line_too() -> None:
    """Any exception: its type and text without passwords; --debug shows where."""
    script = (
        "import sys\nfrom ingest.cli import main as cli\n@cli.cli.command('boom')\ndef boom():\n"
        "    raise RuntimeError('at stomp://u:geheim@h:1\\nand more\\x1b[2J')\ncli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "boom"], capture_output=True, timeout=60, check=False
    )
    text = complaint(done, 1)
    assert "RuntimeError: at stomp://u:" in text
    assert "\x1b" not in text
    debugged = subprocess.run(
        [sys.executable, "-c", script, "boom", "--debug"], capture_output=True, timeout=60, check=False
    )
    assert b"Traceback" in debugged.stderr


def test_ctrl_c_ends_a_command_quietly() -> None:
    """No stack trace, and the code that shells use."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        process = subprocess.Popen(
            [*INGEST, "publish", "-", "--queue-source", f"stomp://127.0.0.1:{port}"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        mute.settimeout(60)
        connection, _ = mute.accept()
        with connection:
            connection.recv(1)  # it waits for the answer to this
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.strip() == b""


def test_a_reader_that_leaves_early_is_told_nothing() -> None:
    """``ingest config | head -1`` has nothing to complain about."""
    process = subprocess.Popen([*INGEST, "config"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 1


# Settings


def test_without_a_command_the_commands_are_listed() -> None:
    """Every command of the documents is there."""
    done = ingest()
    assert done.returncode == 2
    for command in (
        "run",
        "publish",
        "show",
        "query",
        "status",
        "quarantine",
        "migrate",
        "gc",
        "config",
        "demo",
    ):
        assert f"\n  {command} " in done.stderr.decode()


def test_config_prints_origins_and_hides_passwords(tmp_path: Path) -> None:
    """Each value with where it comes from, no password whatever its source."""
    (tmp_path / "ingest.toml").write_text('database = "host=h password=geheim"\nwriters = 3\n')
    done = ingest(
        "config", "--queue-source", "stomp://u:geheim@h:1", "--drain-timeout-s", "2m", "--no-migrate",
        environment={"INGEST_WORKERS": "5"},
    )  # fmt: skip
    assert done.returncode == 0
    text = done.stdout.decode()
    assert "geheim" not in text
    lines = {line.split()[0]: line.partition("= ")[2] for line in text.splitlines()}
    assert lines["workers"] == "5  # INGEST_WORKERS"
    assert lines["writers"] == "3  # ingest.toml"
    assert lines["drain_timeout_s"] == "120.0  # --drain-timeout-s"
    assert lines["migrate"] == "false  # --migrate"
    assert lines["destination"] == '"/queue/catalog"  # default'
    assert lines["queue_source"].endswith('@h:1"  # --queue-source')


# Publishing


def _delivered(url: str, messages: int) -> list[tuple[dict[str, str], bytes]]:
    """What a plain STOMP 1.0 consumer gets from the queue, headers and body."""
    host, _, port = url.removeprefix("stomp://").rpartition(":")
    found: list[tuple[dict[str, str], bytes]] = []
    with (
        socket.create_connection((host, int(port)), timeout=60) as connection,
        connection.makefile("rb") as file,
    ):
        connection.sendall(b"CONNECT\n\n\0SUBSCRIBE\ndestination:/queue/catalog\n\n\0")
        while len(found) < messages:
            command = file.readline().strip(b"\r\n\0")
            if not command:
                continue
            headers = {}
            while line := file.readline().strip(b"\r\n"):
                name, _, value = line.decode().partition(":")
                headers[name] = value
            body = file.read(int(headers.get("content-length", 0)))
            if command == b"MESSAGE":
                found.append((headers, body))
    return found


def test_published_files_arrive_byte_for_byte_with_their_headers(broker: str, tmp_path: Path) -> None:
    """Any format, standard input too; what the headers say comes from the body, then from --header."""
    wire, native = corpus.body("minimal-01", 1, "wire"), corpus.body("minimal-03", 1, "native")
    (tmp_path / "wire.json").write_bytes(wire)
    (tmp_path / "native.json").write_bytes(native)
    done = ingest(
        "publish", "wire.json", "native.json", "-", "--queue-source", broker, "--header", "job_id=7",
        stdin=b"no catalog \xff\0 at all",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"published 3, each with the broker's receipt\n"
    delivered = _delivered(broker, 3)
    assert [body for _, body in delivered] == [wire, native, b"no catalog \xff\0 at all"]
    certnames = [json.loads(wire)["certname"], json.loads(native)["name"], None]
    assert [headers.get("certname") for headers, _ in delivered] == certnames
    assert all(headers["job_id"] == "7" and headers["persistent"] == "true" for headers, _ in delivered)


@pytest.mark.parametrize(
    ("body", "certname"),
    [
        (b'{"name": "a", "resources": [], "edges": []}', "a"),
        (b'{"name": "a\\nb", "resources": [], "edges": []}', None),
        ('{"name": "ä", "resources": [], "edges": []}'.encode(), None),
        (b'{"command": "deactivate node", "version": 3, "payload": {"certname": "a"}}', "a"),
        (b"", None),
        (b"[" * 100_000, None),
    ],
)
def test_a_header_holds_only_what_every_stomp_version_can_carry(body: bytes, certname: str | None) -> None:
    """What might end a header line stays in the body; a body that nobody can read has no headers."""
    headers = headers_of(body)
    assert headers.get("certname") == certname
    assert "producer_timestamp" not in headers
    assert headers["content-type"] == "application/json"


# Quarantine


def test_the_quarantine_can_be_looked_at_and_given_back(
    broker: str, database: str, connection: Connection
) -> None:
    """list, show, export, retry, drop; nothing that a producer wrote reaches the terminal raw."""
    for number, body in enumerate((b"{bad \xff", None)):
        connection.execute(
            "INSERT INTO quarantine (digest, reason, detail, certname, headers, body, body_bytes)"
            " VALUES (%s, 'unreadable', %s, %s, %s, %s, 6)",
            [
                b"%d" % number,
                "two\nlines \x1b[2J",
                "evil\x1b[31m",
                '{"certname": "a", "destination": "x"}',
                body,
            ],
        )
    quarantine = ["--database", database, "--queue-source", broker]

    listed = ingest("quarantine", "list", *quarantine)
    assert listed.returncode == 0, listed.stderr
    assert len(listed.stdout.splitlines()) == 2
    assert b"\x1b" not in listed.stdout

    shown = json.loads(ingest("quarantine", "show", "1", *quarantine).stdout)
    assert (shown["reason"], shown["body"]) == ("unreadable", "{bad \\xff")
    assert ingest("quarantine", "export", "1", *quarantine).stdout == b"{bad \xff"
    assert "not kept" in complaint(ingest("quarantine", "export", "2", *quarantine), 5)

    assert "not kept" in complaint(ingest("quarantine", "retry", "1", "2", *quarantine), 5)
    assert ingest("quarantine", "retry", "1", "1", *quarantine).stdout == b"1 given back to /queue/catalog\n"
    ((headers, body),) = _delivered(broker, 1)
    assert (headers["certname"], body) == ("a", b"{bad \xff")
    first_seen = datetime.fromisoformat(shown["first_seen"])
    assert datetime.fromisoformat(headers["producer_timestamp"]) == first_seen  # it is no newer than it was
    assert ingest("quarantine", "drop", "2", *quarantine).stdout == b"1 dropped\n"
    assert connection.execute("SELECT count(*) FROM quarantine").fetchone() == (0,)


# Status


@pytest.mark.parametrize("healthy", [True, False])
def test_status_shows_a_running_engine_to_a_person(healthy: bool) -> None:
    """Ready or why not, then each process with its numbers; the code says whether it is healthy."""
    names = ["receiver", "writer-0"]
    table = MetricsTable(bytearray(MetricsTable.size(len(names))))
    table.row(0).add(Metric.STORED, 12345)
    table.row(1).observe(Metric.BATCH_MESSAGES, 3)
    table.row(1).observe(Metric.BATCH_MESSAGES, 4)
    reasons = () if healthy else ("writer-0 is not running",)
    server = serve("127.0.0.1", 0, table, names, lambda: Health(healthy, healthy, reasons))
    try:
        done = ingest("status", "--all", "--metrics-port", str(server.server_port))
        short = ingest("status", "--metrics-port", str(server.server_port))
        found = json.loads(ingest("status", "--json", "--metrics-port", str(server.server_port)).stdout)
    finally:
        server.close()
    text = done.stdout.decode()
    assert "12,345" in text
    assert "batch messages, mean" in text
    assert " 3.5\n" in text
    assert len(short.stdout.splitlines()) <= 12
    assert "12,345 stored" in short.stdout.decode()
    assert found["engine"]["settled"]["stored"] == 12345
    assert found["engine"]["healthy"] == healthy
    if healthy:
        assert done.returncode == 0
        assert text.startswith("ready\n")
    else:
        assert "writer-0 is not running" in complaint(done, 3)
        assert text.startswith("not ready: writer-0 is not running\n")


def test_an_answer_that_is_none_of_ours_is_one_clear_line() -> None:
    """Another program on that port is no engine."""
    port = free_port()
    script = (
        "import http.server\n"
        f"server = http.server.HTTPServer(('127.0.0.1', {port}), http.server.SimpleHTTPRequestHandler)\n"
        "print('up', flush=True)\nserver.handle_request()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"up\n"
        assert "--metrics-port" in complaint(ingest("status", "--metrics-port", str(port)), 3)


def test_a_mean_of_nothing_is_zero() -> None:
    """A histogram without values is no division by zero."""
    assert number_lines({"ingest_batch_messages_count": 0.0, "ingest_batch_messages_sum": 0.0}) != []


def test_a_command_starts_without_what_it_does_not_use() -> None:
    """The command line is there before the log, the terminal's pictures, the database and the model are: each would take
    longer to load than all of it."""
    heavy = (
        "structlog",
        "rich",
        "asyncio",
        "psycopg",
        "prometheus_client",
        "stomp",
        "numpy",
        "simpy",
        "starlette",
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, ingest.cli.main; print(*sys.modules.keys() & {set(heavy)})"],
        capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
    )  # fmt: skip
    assert done.stdout.split() == []
