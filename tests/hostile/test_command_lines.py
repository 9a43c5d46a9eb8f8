"""Passwords on command lines are told of and never needed; wrong arguments are one line each."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ingest.config.loading import load
from ingest.errors import Misconfigured
from ingest.transport.protocol import brokers
from lab.brokers import PASSWORD, USER
from lab.engine import Engine
from lab.servers import embedded_broker, free_port

REPOSITORY = Path(__file__).parent.parent.parent
NOWHERE = "127.0.0.1:1"


def ingest(
    *arguments: str, cwd: Path | None = None, stdin: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "ingest", *arguments], input=stdin, capture_output=True, check=False, timeout=60,
        cwd=cwd, env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment,
    )  # fmt: skip


# Passwords


@pytest.mark.parametrize(
    ("arguments", "setting", "better"),
    [
        (("show", "a", "--database", f"postgresql://u:geheim@{NOWHERE}/d"), b"--database", b"PGPASSFILE"),
        (("gc", "--database", "host=127.0.0.1 port=1 password=geheim"), b"--database", b"INGEST_DATABASE"),
        (("quarantine", "list", "--database", "host=/x password='ge heim'"), b"--database", b"ingest.toml"),
        (("migrate", "--database", "host=/x password='ge"), b"--database", b"passfile"),
        (
            ("publish", "-", "--queue-source", f"stomp://u:geheim@{NOWHERE}"),
            b"--queue-source",
            b"--queue-password-file",
        ),
        (
            ("run", "--queue-source", f"stomp://h,stomp://u:geheim@{NOWHERE}", "--database", "host=/x"),
            b"--queue-source",
            b"INGEST_QUEUE_SOURCE",
        ),
        (("config", "--queue-source", "stomp://u:geheim@h"), b"--queue-source", b"ingest.toml"),
    ],
)
def test_a_password_on_a_command_line_is_warned_of(
    arguments: tuple[str, ...], setting: bytes, better: bytes
) -> None:
    """Every command names the setting and what to use instead, in one line, whether it succeeds or not."""
    done = ingest(*arguments)
    lines = [line for line in done.stderr.splitlines() if b"process list" in line]
    assert len(lines) == 1
    assert setting in lines[0]
    assert better in lines[0]
    assert b"geheim" not in done.stderr
    if arguments[0] != "run":
        assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("source", ["file", "variable", "none in it"])
def test_a_password_elsewhere_is_not_warned_of(tmp_path: Path, source: str) -> None:
    """Settings file, variable, and an address without a password are as it should be."""
    url = f"stomp://u:geheim@{NOWHERE}"
    environment: dict[str, str] = {}
    arguments: tuple[str, ...] = ()
    if source == "file":
        (tmp_path / "ingest.toml").write_text(f'queue_source = "{url}"\n')
    elif source == "variable":
        environment = {"INGEST_QUEUE_SOURCE": url}
    else:
        arguments = ("--queue-source", f"stomp://u@{NOWHERE}", "--database", "host=/x passfile=/y")
    done = ingest("publish", "-", *arguments, cwd=tmp_path, **environment)
    assert done.returncode == 3
    assert b"process list" not in done.stderr


def test_a_password_comes_from_a_file(tmp_path: Path) -> None:
    """The first line, whatever follows; for each user without a password of its own, and for nobody else."""
    file = tmp_path / "password"
    file.write_text("p@ss:wörd \r\nmore\n")
    config = load(
        {"queue_source": "stomp://a@h,stomp://b:own@h,stomp://h", "queue_password_file": str(file)}, {}
    ).config
    assert [broker.endpoint.password for broker in brokers(config)] == ["p@ss:wörd ", "own", None]  # type: ignore[attr-defined]


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe\n"])
def test_a_file_without_a_password_is_named(tmp_path: Path, content: bytes) -> None:
    """Empty, or not text: the setting and the file, and nothing of what is in it."""
    file = tmp_path / "password"
    file.write_bytes(content)
    for named in (file, tmp_path, tmp_path / "nowhere"):
        config = load({"queue_source": "stomp://a@h", "queue_password_file": str(named)}, {}).config
        with pytest.raises(Misconfigured, match=f"--queue-password-file: {named}"):
            brokers(config)


def test_no_process_of_the_engine_has_a_password_in_its_command_line(database: str, tmp_path: Path) -> None:
    """Given by a file and a variable, neither stands in any /proc/PID/cmdline; the engine works with both."""
    (tmp_path / "login").write_text(f"{USER}:{PASSWORD}\n")
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    with embedded_broker("--login-file", str(tmp_path / "login")) as address:
        url = address.replace("://", f"://{USER}@")
        engine = Engine(
            url, "", "--workers", "1", "--queue-password-file", str(tmp_path / "password"),
            log=tmp_path / "log", environment={"INGEST_DATABASE": f"{database} password=geheim"},
        )  # fmt: skip
        try:
            engine.wait_ready()
            tree = [
                psutil.Process(engine.process.pid),
                *psutil.Process(engine.process.pid).children(recursive=True),
            ]
            assert len(tree) >= 4
            for process in tree:
                words = " ".join(process.cmdline())
                assert PASSWORD not in words
                assert "geheim" not in words
            assert engine.stop() == 0
        finally:
            engine.kill()
        assert PASSWORD not in engine.log.read_text()
        assert "geheim" not in engine.log.read_text()


# Publishing what is nothing


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (["directory"], b"directory: is a directory"),
        (["good.json", "directory"], b"directory: is a directory"),
        (["."], b"is a directory"),
        (["empty"], b"empty: there is nothing"),
        (["good.json", "empty"], b"empty: there is nothing"),
        (["nowhere"], b"nowhere: No such file"),
        (["dangling"], b"dangling: No such file"),
        (["good.json/x"], b"Not a directory"),
        ([""], b"FILE"),
        (["/dev/null"], b"/dev/null: there is nothing"),
        (["/dev/zero", "--body-bytes-max", "1MiB"], b"body_bytes_max"),
        (["good.json", "sparse"], b"sparse: has more than body_bytes_max"),
        (["good.json", "socket"], b"socket: is a socket"),
        (["good.json", "loop"], b"loop: Too many levels"),
        (["good.json", "/proc/self/mem"], b"mem: there is nothing"),
        (["good.json", "x" * 300], b"File name too long"),
        (["-"], b"-: there is nothing"),
        (["-", "-"], b"twice"),
        ([], b"FILE"),
    ],
)
def test_publishing_nothing_is_one_line(tmp_path: Path, files: list[str], named: bytes) -> None:
    """A directory, an empty file, no file: exit code 2, and nothing of the others was sent."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "good.json").write_text("{}")
    (tmp_path / "dangling").symlink_to("gone")
    (tmp_path / "loop").symlink_to("loop")
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 40)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
    with embedded_broker() as broker:
        done = ingest("publish", *files, "--queue-source", broker, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert done.stderr.count(b"\n") == 1
        assert named in done.stderr
        assert b"Traceback" not in done.stderr
        host, _, port = broker.removeprefix("stomp://").partition(":")
        if "/dev/null" not in files:
            from ingest.embedded.broker.depths import read_depths

            assert read_depths(host, int(port)) == {}


def test_a_pipe_is_published(tmp_path: Path) -> None:
    """What is no regular file but has an end is as good as a file."""
    os.mkfifo(tmp_path / "pipe")
    writer = subprocess.Popen(["sh", "-c", f"echo '{{}}' > {tmp_path / 'pipe'}"])
    with embedded_broker() as broker:
        done = ingest("publish", str(tmp_path / "pipe"), "--queue-source", broker)
    writer.wait()
    assert done.stdout == b"published 1, each with the broker's receipt\n"


# Wrong arguments


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("show", "\udcff", "--database", "DATABASE"), 2, b"UTF-8"),
        (("query", "who-has", "A", "\udcff", "--database", "DATABASE"), 2, b"UTF-8"),
        (("gc", "--database", "host=\udcff"), 2, b"--database"),
        (("gc", "--database", "host=/x port=abc"), 2, b"--database"),
        (("gc", "--database", "host=/x sslmode=maybe"), 2, b"--database"),
        (("gc", "--database", "service=nowhere"), 2, b"--database"),
        (("gc", "--database", "postgresql://u:x geheim@h/d"), 2, b"--database"),
        (("gc", "--database", "password = x geheim"), 2, b"--database"),
        (("gc", "--database", "postgresql://u:%zzgeheim@h/d"), 2, b"--database"),
        (("quarantine", "list", "--limit", "9" * 20, "--database", "DATABASE"), 2, b"--limit"),
        (("publish", "-", "--queue-source", "stomp://h:notaport"), 2, b"--queue-source"),
        (("publish", "-", "--queue-source", "stomp://u:tOp/geheim@h:1"), 2, b"--queue-source"),
        (("publish", "-", "--queue-source", "stomp://h:99999"), 2, b"--queue-source"),
        (("publish", "-", "--queue-source", "stomp://"), 2, b"--queue-source"),
        (("publish", "-", "--queue-source", "http://[::1"), 2, b"--queue-source"),
        (("status", "--metrics-port", "0"), 2, b"--metrics-port"),
        (("status", "--metrics-host", "a b"), 3, b"--metrics-host"),
        (("status", "--metrics-host", "unix:/nowhere"), 3, b"--metrics-host"),
        (("status", "--metrics-host", "unix:/" + "x" * 200), 3, b"--metrics-host"),
        (("config", "--config", "/"), 2, b"Is a directory"),
        (("config", "--puppet-conf", "/"), 2, b"Is a directory"),
        (("config", "--data-dir", "a\udcff"), 2, b"--data-dir"),
    ],
)
def test_a_wrong_argument_is_one_line(
    database: str, tmp_path: Path, arguments: tuple[str, ...], code: int, named: bytes
) -> None:
    """It names the setting, never shows what may be a password, and never a stack trace."""
    done = ingest(*(database if word == "DATABASE" else word for word in arguments), cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert done.stderr.count(b"\n") == 1
    assert named in done.stderr
    assert b"geheim" not in done.stderr
    assert b"Error:" not in done.stderr


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--metrics-port", "TAKEN"), b"--metrics-port"),
        (("--metrics-host", "nowhere.invalid"), b"--metrics-port"),
        (("--metrics-host", "unix:/nowhere/socket"), b"--metrics-host"),
        (("--metrics-host", "unix:file"), b"--metrics-host"),
        (("--metrics-host", "unix:" + "x" * 200), b"--metrics-host"),
        (("--database", "", "--data-dir", "file"), b"--data-dir"),
        (("--database", "", "--data-dir", "/proc"), b"--data-dir"),
        (("--queue-password-file", "nowhere"), b"--queue-password-file"),
    ],
)
def test_run_says_what_it_cannot_use(
    database: str, tmp_path: Path, flags: tuple[str, ...], named: bytes
) -> None:
    """A port, a socket, a directory or a file: the last line names the setting, exit code 2."""
    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken, embedded_broker() as broker:
        given = [str(taken.getsockname()[1]) if flag == "TAKEN" else flag for flag in flags]
        done = ingest(
            "run", "--queue-source", broker, "--database", database, "--metrics-port", str(free_port()), *given,
            cwd=tmp_path,
        )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert named in done.stderr.splitlines()[-1]
    assert b"Traceback" not in done.stderr


def test_closed_standard_streams_are_no_matter() -> None:
    """``ingest config >&-`` ends well, and no socket takes the number of a closed stream."""
    command = f"{sys.executable} -m ingest config >&- 2>&- <&-"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    assert subprocess.run(["sh", "-c", command], check=False, env=environment).returncode == 0


def test_a_stopped_child_is_told_from_one_that_works() -> None:
    """As long as it is stopped, at every look; not before and not after."""
    from ingest.engine.child_process import ChildProcess

    child = ChildProcess("decoder-0")
    assert not child.is_stopped()
    with subprocess.Popen(["sleep", "60"]) as process:
        child.process = process
        try:
            for word, expected in (("", False), ("STOP", True), ("", True), ("CONT", False)):
                if word:
                    subprocess.run(["kill", f"-{word}", str(process.pid)], check=True)
                deadline = time.monotonic() + 10
                while child.is_stopped() != expected:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
        finally:
            process.kill()
        process.wait()
        assert not child.is_stopped()
