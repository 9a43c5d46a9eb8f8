"""``--also``: what the broker has taken is passed on to a PuppetDB, and nobody waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ingest.config.settings import Config
from ingest.errors import Misconfigured
from ingest.front.command_rules import Command
from ingest.front.mirror import Mirror
from lab.servers import free_port
from tests.front.conftest import Serve


class Peer:
    """Takes commands as PuppetDB does; ``answers`` are the next statuses, 200 when there are none."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        peer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = peer.answers.pop(0) if peer.answers else 200
                if status == 200:
                    query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
                    peer.got.append(({name: values[0] for name, values in query.items()}, body))
                self.send_response(status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    started = Peer(free_port())
    yield started
    started.stop()


def command(number: int) -> Command:
    return Command("replace facts", 5, f"n\u00fc{number}&x", f"2026-11-01T10:00:00.{number:03}Z", 0.0)


def config(port: int, directory: Path, **more: Any) -> Config:
    return Config(also=f"http://127.0.0.1:{port}", data_dir=str(directory), **more)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_commands_are_passed_on_in_their_order(peer: Peer, tmp_path: Path) -> None:
    """With the address that they came with, and the very bytes."""
    mirror = Mirror(config(peer.port, tmp_path))
    bodies = [b'{"n": %d}' % number + bytes(number * 1000) for number in range(30)]
    for number, body in enumerate(bodies):
        mirror.take(command(number), memoryview(body))
    until(lambda: mirror.passed == 30, "passed on")
    mirror.close()
    assert [body for _, body in peer.got] == bodies
    assert peer.got[7][0] == {
        "command": "replace_facts", "version": "5", "certname": "n\u00fc7&x",
        "producer-timestamp": "2026-11-01T10:00:00.007Z",
    }  # fmt: skip
    assert list(tmp_path.rglob("*.command")) == []


def test_what_it_missed_it_gets_later(tmp_path: Path) -> None:
    """It is away, and then our own process ends: the next one sends all of it, the oldest first."""
    port = free_port()
    first = Mirror(config(port, tmp_path))
    for number in range(5):
        first.take(command(number), b"%d" % number)
    first.close()
    assert (first.passed, first.dropped) == (0, 0)
    peer = Peer(port)
    try:
        second = Mirror(config(port, tmp_path))
        second.take(command(5), b"5")
        until(lambda: second.passed == 6, "passed on")
        second.close()
        assert [body for _, body in peer.got] == [b"0", b"1", b"2", b"3", b"4", b"5"]
    finally:
        peer.stop()


def test_it_comes_back_by_itself(peer: Peer, tmp_path: Path) -> None:
    """What it could not take (5xx) comes again; what it does not want (4xx) is counted, and the next one's turn comes."""
    peer.answers += [503, 500, 400, 413]
    mirror = Mirror(config(peer.port, tmp_path))
    for number in range(4):
        mirror.take(command(number), b"%d" % number)
    until(lambda: mirror.passed + mirror.refused == 4, "settled")
    mirror.close()
    assert [body for _, body in peer.got] == [b"2", b"3"]
    assert (mirror.passed, mirror.refused, mirror.dropped, mirror.waiting) == (2, 2, 0, 0)


def test_what_has_no_room_is_counted(tmp_path: Path) -> None:
    """And nobody waits: neither for the disk nor for PuppetDB."""
    mirror = Mirror(config(free_port(), tmp_path, also_bytes_max=1024 * 1024))
    for number in range(5):
        mirror.take(command(number), bytes(300_000))
    until(lambda: mirror.dropped == 2, "dropped")
    assert mirror.waiting == 3
    mirror.close()
    assert len(list(tmp_path.rglob("*.command"))) == 3


def test_two_processes_have_a_directory_each(peer: Peer, tmp_path: Path) -> None:
    """Neither sends what is the other's; what one leaves, the next one takes."""
    one, other = Mirror(config(peer.port, tmp_path)), Mirror(config(peer.port, tmp_path))
    one.take(command(1), b"1")
    other.take(command(2), b"2")
    until(lambda: one.passed == other.passed == 1, "passed on")
    one.close()
    other.close()
    assert {path.name for path in (tmp_path / "mirror").iterdir()} == {"0", "1"}


@pytest.mark.parametrize("address", ["puppetdb", "ftp://x", "http://", "http://h:99999", "https://h/pdb?x=1"])
def test_an_address_that_is_none_is_told(tmp_path: Path, address: str) -> None:
    """By the name of the setting."""
    with pytest.raises(Misconfigured, match="--also"):
        Mirror(Config(also=address, data_dir=str(tmp_path)))


def test_our_answer_does_not_depend_on_it(serve: Serve, tmp_path: Path) -> None:
    """A PuppetDB that is away: 200 for the client, and its command waits, which monitoring sees."""
    front = serve("--also", f"http://127.0.0.1:{free_port()}", "--data-dir", str(tmp_path))
    posted = front.post(
        "/pdb/cmd/v1?command=replace_facts&version=5&certname=a",
        {"certname": "a", "values": {}, "environment": "e", "producer_timestamp": "2026-11-01T10:00:00Z"},
    )
    assert posted.status == 200, posted.text

    def number(name: str) -> int:
        value = front.get(f"/metrics/v2/read/puppet-ingest.mirror:name={name}").json["value"]["Value"]
        return int(value)

    until(lambda: number("waiting") == 1, "waiting")
    assert (number("passed"), number("dropped")) == (0, 0)
    until(lambda: any(line["event"] == "mirror_away" for line in front.lines()), "told")
    front.stop()
    assert len(list(tmp_path.rglob("*.command"))) == 1
