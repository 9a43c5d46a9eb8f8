"""The embedded broker as a process that keeps what it gave a receipt for: killed, restarted, with a full disk."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ingest.embedded.broker.starting import BrokerOptions, embedded_broker
from lab.servers import free_port
from lab.stomp_client import Client

QUEUE = "/queue/catalog"
LOGIN = ("ingest", "secret")


@contextmanager
def broker(
    directory: Path, *arguments: str, port: int = 0, prefix: tuple[str, ...] = ()
) -> Iterator[tuple[int, int]]:
    """(its process id, its port); killed at the end."""
    login = directory.parent / "login"
    login.write_text(":".join(LOGIN))
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "ingest.embedded.broker", "--port", str(port), "--login-file", str(login),
         "--directory", str(directory), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.readline()
        assert line.startswith("listening "), line
        try:
            yield process.pid, int(line.rpartition(":")[2])
        finally:
            process.kill()
            process.wait()


def drain(port: int) -> dict[bytes, bool]:
    """Every message's body, and whether it came as one that was delivered before."""
    found: dict[bytes, bool] = {}
    with Client(port, *LOGIN) as consumer:
        consumer.subscribe(QUEUE)
        while True:
            try:
                message = consumer.message(0.5)
            except TimeoutError:
                return found
            found[message.body] = message.headers.get("redelivered") == "true"
            consumer.acknowledge(message)


def test_what_had_a_receipt_is_there_after_a_kill(tmp_path: Path) -> None:
    """kill -9 right after the receipt; headers, order and the time at which it came are as they were."""
    with broker(tmp_path / "kept") as (_, port), Client(port, *LOGIN) as publisher:
        for number in range(5):
            publisher.publish(QUEUE, b"%d" % number, {"certname": f"n{number}"})
    with broker(tmp_path / "kept") as (_, port), Client(port, *LOGIN) as consumer:
        consumer.subscribe(QUEUE)
        messages = [consumer.message() for _ in range(5)]
        assert [message.body for message in messages] == [b"%d" % number for number in range(5)]
        assert [message.headers["certname"] for message in messages] == [f"n{number}" for number in range(5)]
        assert all(int(message.headers["timestamp"]) <= time.time() * 1000 for message in messages)
        assert not any("redelivered" in message.headers for message in messages)


def test_what_was_acknowledged_is_gone_and_what_was_delivered_is_marked(tmp_path: Path) -> None:
    """Over a kill too."""
    with broker(tmp_path / "kept") as (_, port):
        with Client(port, *LOGIN) as publisher:
            for number in range(4):
                publisher.publish(QUEUE, b"%d" % number)
        with Client(port, *LOGIN) as consumer:
            consumer.subscribe(QUEUE, **{"prefetch-count": "2"})
            consumer.acknowledge(consumer.message())
            consumer.message()
            consumer.send("DISCONNECT", {"receipt": "bye"})
            while consumer.frame().headers.get("receipt-id") != "bye":
                pass
    with broker(tmp_path / "kept") as (_, port):
        assert drain(port) == {b"1": True, b"2": True, b"3": False}


def test_a_receipt_for_disconnect_says_that_all_before_it_is_kept(tmp_path: Path) -> None:
    """A publisher that asks for one receipt at its end."""
    with broker(tmp_path / "kept") as (_, port), Client(port, *LOGIN) as publisher:
        for number in range(50):
            publisher.send("SEND", {"destination": QUEUE}, b"%d" % number)
        publisher.send("DISCONNECT", {"receipt": "all"})
        assert publisher.frame().headers["receipt-id"] == "all"
    with broker(tmp_path / "kept") as (_, port):
        assert len(drain(port)) == 50


def test_a_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    """Publishers and a consumer at work, kill -9 at any moment: each message with a receipt is consumed or still there."""
    generator = random.Random(1)
    port = free_port()
    receipted: set[bytes] = set()
    consumed: set[bytes] = set()
    number = 0
    for _ in range(int(os.environ.get("INGEST_TEST_KILLS", "20"))):
        with (
            broker(tmp_path / "kept", port=port) as (pid, _),
            Client(port, *LOGIN) as publisher,
            Client(port, *LOGIN) as consumer,
        ):
            consumer.subscribe(QUEUE, **{"prefetch-count": "5"})
            kill_after = generator.randrange(1, 40)
            for step in range(60):
                if step == kill_after:
                    os.kill(pid, signal.SIGKILL)
                number += 1
                body = b"%d " % number * generator.choice((1, 10, 30_000))
                try:
                    publisher.publish(QUEUE, body)
                    receipted.add(body)
                    if step % 2:
                        message = consumer.message()
                        consumed.add(message.body)
                        consumer.acknowledge(message)
                except (OSError, AssertionError):
                    break
    with broker(tmp_path / "kept", port=port):
        left = set(drain(port))
    assert receipted - consumed - left == set()
    assert len(receipted) > 100


def test_a_full_disk_is_told_to_the_publisher(tmp_path: Path) -> None:
    """In an ERROR frame; what had a receipt is there, and smaller messages are taken on."""
    with broker(tmp_path / "kept", prefix=("prlimit", "--fsize=50000")) as (_, port):
        with Client(port, *LOGIN) as publisher:
            publisher.publish(QUEUE, b"a" * 30_000)
            publisher.send("SEND", {"destination": QUEUE, "receipt": "r"}, b"b" * 30_000)
            refused = publisher.frame()
            assert refused.command == "ERROR"
            assert refused.headers["message"] == "the broker cannot write to its disk\\c File too large"
            assert refused.headers["receipt-id"] == "r"
        with Client(port, *LOGIN) as publisher:
            publisher.publish(QUEUE, b"c" * 1000)
    with broker(tmp_path / "kept") as (_, port):
        assert set(drain(port)) == {b"a" * 30_000, b"c" * 1000}


def test_over_the_disk_limit_publishers_are_refused_and_consumers_are_not(tmp_path: Path) -> None:
    """When consumers have made room, publishers may go on."""
    with broker(tmp_path / "kept", "--disk-bytes-max", "100000") as (_, port):
        with Client(port, *LOGIN) as publisher:
            publisher.publish(QUEUE, b"a" * 20_000)
            publisher.send(
                "SEND", {"destination": QUEUE, "receipt": "r", "content-length": "20000"}, b"b" * 20_000
            )
            refused = publisher.frame()
            assert refused.headers["message"] == "the broker's disk limit of 100000 bytes is reached"
        assert list(drain(port)) == [b"a" * 20_000]
        with Client(port, *LOGIN) as publisher:
            publisher.publish(QUEUE, b"d" * 20_000)


def test_more_than_memory_holds_is_taken_and_given_out(tmp_path: Path) -> None:
    """Nobody consumes meanwhile: bodies are on disk only."""
    arguments = ("--memory-bytes-max", "2000000", "--body-bytes-max", "1000000")
    bodies = [b"%03d" % number * 100_000 for number in range(40)]
    with broker(tmp_path / "kept", *arguments) as (_, port):
        with Client(port, *LOGIN) as publisher:
            for body in bodies:
                publisher.publish(QUEUE, body)
        assert list(drain(port)) == bodies


def test_a_broker_that_dies_is_started_again_where_it_was(tmp_path: Path) -> None:
    """With the same address, login and messages, by who started it."""
    with embedded_broker(0, BrokerOptions(tmp_path / "kept", log_level="info")) as url:
        found = urlsplit(url)
        assert found.port
        assert found.username
        assert found.password
        with Client(found.port, found.username, found.password) as publisher:
            publisher.publish(QUEUE, b"kept")
            os.kill(_child(tmp_path), signal.SIGKILL)
        deadline = time.monotonic() + 30
        while True:
            try:
                with Client(found.port, found.username, found.password) as consumer:
                    consumer.subscribe(QUEUE)
                    assert consumer.message().body == b"kept"
                    break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)


def _child(directory: Path) -> int:
    """Of this process, the broker that keeps what it has there."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    (broker_,) = [
        pid for pid in children if str(directory).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return int(broker_)


def test_two_in_one_directory_is_one_clear_line(tmp_path: Path) -> None:
    """The second is told whose it is."""
    with broker(tmp_path / "kept"):
        second = subprocess.run(
            [
                sys.executable,
                "-m",
                "ingest.embedded.broker",
                "--port",
                "0",
                "--directory",
                str(tmp_path / "kept"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    assert second.returncode == 2
    assert second.stderr.splitlines()[-1].endswith(f"another broker uses {tmp_path / 'kept'}")


@pytest.mark.parametrize("name", ["kept"])
def test_a_directory_that_cannot_be_made_is_one_clear_line(tmp_path: Path, name: str) -> None:
    """A file stands in the way."""
    (tmp_path / name).write_text("")
    refused = subprocess.run(
        [sys.executable, "-m", "ingest.embedded.broker", "--port", "0", "--directory", str(tmp_path / name)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert str(tmp_path / name) in refused.stderr
