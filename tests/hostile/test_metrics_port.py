"""Whatever comes to the metrics port: it costs a handful of descriptors, little CPU, and the engine works on."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.observe.http import HEAD_BYTES_MAX, Page, Refusal, head_end, is_allowed, read_request
from ingest.observe.server import Limits, Server, listen
from lab.engine import Engine, wait_for
from lab.servers import embedded_broker

GET = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
SHORT = Limits(head_timeout_s=0.4, answer_timeout_s=0.6, linger_s=0.2)


def _small(path: str) -> Page:
    return Page(200 if path == "/metrics" else 404, "text/plain", b"ingest_up 1\n")


@contextmanager
def served(
    pages: Callable[[str], Page] = _small,
    *,
    limits: Limits | None = None,
    hosts: tuple[str, ...] = (),
    at: str = "127.0.0.1",
) -> Iterator[Server]:
    server = Server(listen(at, 0), pages, hosts, limits=limits)
    server.start()
    try:
        yield server
    finally:
        server.close()


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server_port), timeout=20)


def read_all(opened: socket.socket) -> bytes:
    """Until the other side ends; nothing of it for a reset."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while more := opened.recv(65536):
            found += more
    return found


def ask(server: Server, request: bytes = GET) -> bytes:
    with connect(server) as opened:
        opened.sendall(request)
        return read_all(opened)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def is_open(opened: socket.socket) -> bool:
    opened.setblocking(False)
    try:
        return opened.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


# Connections


@pytest.mark.parametrize("said", [b"", b"G", b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_a_thousand_connections_that_wait_leave_room_for_a_scraper(said: bytes) -> None:
    """Idle or in the middle of a request: at most sixteen are kept, and who asks at any time is answered."""
    threads = threading.active_count()
    with ExitStack() as stack:
        server = stack.enter_context(served())
        opened = []
        for number in range(1000):
            opened.append(stack.enter_context(connect(server)))
            opened[-1].sendall(said)
            if number % 250 == 0:
                assert status_of(ask(server)) == 200
        assert status_of(ask(server)) == 200
        assert sum(map(is_open, opened)) <= Limits().connections_max
        assert threading.active_count() == threads + 1


def test_connections_that_wait_cost_no_cpu() -> None:
    """Whoever only waits is waited for, not asked."""
    with ExitStack() as stack:
        server = stack.enter_context(served())
        for _ in range(100):
            stack.enter_context(connect(server))
        assert status_of(ask(server)) == 200
        time.sleep(0.1)
        before_s = time.process_time()
        time.sleep(1.0)
        assert time.process_time() - before_s < 0.02


def test_many_requests_get_no_more_than_a_share_of_a_core() -> None:
    """Pages that are dear to make cannot be asked for as fast as they are made."""
    spent_s = 0.0

    def dear(path: str) -> Page:
        nonlocal spent_s
        until_s = time.thread_time() + 0.02
        while time.thread_time() < until_s:
            pass
        spent_s += 0.02
        return Page(200, "text/plain", b"")

    with served(dear) as server:
        started_s = time.monotonic()
        while time.monotonic() - started_s < 1.5:
            ask(server)
        assert 0.0 < spent_s < 0.35 * (time.monotonic() - started_s)


@pytest.mark.parametrize("piece", [b"G", b"X: y\r\n"])
def test_who_sends_slowly_is_hung_up_on(piece: bytes) -> None:
    """A byte or a header now and then prolongs nothing: the whole request is due."""
    with served(limits=SHORT) as server, connect(server) as opened:
        opened.sendall(b"GET /metrics HTTP/1.1\r\n" if piece != b"G" else b"")
        started_s = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while is_open(opened):
                opened.setblocking(True)
                opened.sendall(piece)
                time.sleep(0.05)
                assert time.monotonic() - started_s < 10
        assert time.monotonic() - started_s < 5


def test_who_reads_slowly_is_hung_up_on() -> None:
    """An answer that is not taken ends, and holds up nobody."""
    large = Page(200, "text/plain", b"x" * 8_000_000)
    with served(lambda path: large if path == "/metrics" else _small(path), limits=SHORT) as server:
        with connect(server) as opened:
            opened.sendall(GET)
            assert status_of(ask(server, b"GET /other HTTP/1.0\r\n\r\n")) == 404
            time.sleep(1.0)
            assert len(read_all(opened)) < 8_000_000
        assert len(ask(server).partition(b"\r\n\r\n")[2]) == 8_000_000


def test_what_follows_a_request_is_not_answered_and_disturbs_nothing() -> None:
    """Pipelined requests: one whole answer, then the end, no reset."""
    with served() as server:
        answer = ask(server, GET * 1000)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.endswith(b"ingest_up 1\n")
    assert b"Connection: close" in answer


def test_a_half_closed_connection_is_answered() -> None:
    """Whoever says that it has no more to say still hears."""
    with served() as server, connect(server) as opened:
        opened.sendall(GET)
        opened.shutdown(socket.SHUT_WR)
        assert status_of(read_all(opened)) == 200


def test_a_half_closed_connection_without_a_request_ends() -> None:
    """Half a request that cannot become a whole one is not waited for."""
    with served() as server, connect(server) as opened:
        opened.sendall(GET[:-2])
        opened.shutdown(socket.SHUT_WR)
        assert read_all(opened) == b""


def test_without_descriptors_the_server_rests_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """EMFILE on accept is no busy loop, and no end."""
    listener = listen("127.0.0.1", 0)

    class Out:
        family = socket.AF_INET
        fails = 3

        def accept(self) -> tuple[socket.socket, object]:
            if Out.fails:
                Out.fails -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return listener.accept()

        def __getattr__(self, name: str) -> object:
            return getattr(listener, name)

    server = Server(Out(), _small)  # type: ignore[arg-type]
    server.start()
    try:
        started_s = time.monotonic()
        assert status_of(ask(server)) == 200
        assert time.monotonic() - started_s > 0.2
    finally:
        server.close()


# Requests


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /metrics HTTP/1.0\n\n", 200),
        (b"HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"GET /metrics?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"GET /elsewhere HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody", 405),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET http://localhost/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"CONNECT\naccept-version:1.2\n\n\0", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n folded\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (b"\r\n" * 5000, 400),
        (b"GET\t/metrics\tHTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1 \r\nHost: localhost\r\n\r\n", 400),
        (b"GET  /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"get /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"TRACE /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET //localhost/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /metrics/../metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /%6detrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /metrics\0 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: \0\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n: x\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\rHost: evil.example.com\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nhost: evil.example.com\r\nHOST: localhost\r\n\r\n", 400),
        (b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\nx", 405),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999\r\n\r\n", 200),
        (b"HEAD /elsewhere HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"SSH-2.0-x\r\n\r\n", 400),
        (b"\xff\xf4\xff\xfd\x06\r\n\r\n", 400),
    ],
)
def test_every_request_has_one_answer(request_: bytes, status: int) -> None:
    """The right status whatever was sent, and nothing but a HEAD goes without its text."""
    with served() as server:
        answer = ask(server, request_)
        assert status_of(answer) == status
        body = answer.partition(b"\r\n\r\n")[2]
        assert (body == b"") == request_.startswith(b"HEAD")
        assert status_of(ask(server)) == 200


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True),
        ("LocalHost.:9464", True),
        ("metrics.localhost", True),
        ("127.0.0.1:9464", True),
        ("10.1.2.3", True),
        ("[::1]:9464", True),
        ("Engine.Example.COM:9464", True),
        ("evil.example.com", False),
        ("localhost.evil.example.com", False),
        ("127.0.0.1.evil.example.com", False),
        ("engine.example.com.evil.example.com", False),
        ("evil.example.com:127", False),
        ("user@localhost", False),
        ("localhost/x", False),
        ("localhost:x", False),
        ("", False),
        ("[::1", False),
        ("[::1]", True),
        ("[2001:db8::1]:9464", True),
        ("[fe80::1%eth0]:9464", False),
        ("[localhost]", False),
        ("localhost:99999999", False),
        ("0", False),
        ("127.1", False),
        ("localhost..", False),
        ("xn--localhost-9za", False),
        ("engine.example.com,evil.example.com", False),
    ],
)
def test_a_name_that_is_not_ours_gets_nothing(host: str, allowed: bool) -> None:
    """A web page whose name was made to mean this address (DNS rebinding) reads no numbers."""
    with served(hosts=("engine.example.com",)) as server:
        answer = ask(server, f"GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert status_of(answer) == (200 if allowed else 421)
    assert (b"ingest_up" in answer) == allowed


@given(st.binary(max_size=300))
def test_a_head_that_nobody_understands_is_refused(head: bytes) -> None:
    """Any bytes: an answer or a refusal, never another exception."""
    with contextlib.suppress(Refusal):
        end = head_end(head)
        if end is not None:
            read_request(head[:end], frozenset())


@given(st.text(max_size=60))
def test_no_host_but_ours_is_allowed(host: str) -> None:
    """Whatever is let in is loopback, an address, or listed."""
    if is_allowed(host, ()):
        name = host.rpartition(":")[0] if host.count(":") == 1 else host
        assert "localhost" in name.lower() or name.strip("[]").replace(".", "").replace(":", "").isalnum()


def test_a_request_is_understood_however_it_is_cut() -> None:
    """Where the socket splits the bytes changes nothing; what follows is not looked at."""
    whole = GET + b"GET /other HTTP/1.1\r\n\r\n"
    ends = [head_end(whole[:at]) for at in range(len(whole) + 1)]
    assert ends == [None] * len(GET) + [len(GET)] * (len(whole) - len(GET) + 1)
    with pytest.raises(Refusal):
        head_end(b"x" * HEAD_BYTES_MAX)


# A Unix socket


def test_a_unix_socket_is_for_owner_and_group(tmp_path: Path) -> None:
    """Nobody else may connect; any Host will do; it is gone afterwards."""
    path = tmp_path / "metrics"
    with (
        served(at=f"unix:{path}"),
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as opened,
    ):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        opened.connect(str(path))
        opened.sendall(b"GET /metrics HTTP/1.1\r\nHost: whoever\r\n\r\n")
        assert status_of(read_all(opened)) == 200
    assert not path.exists()


def test_a_socket_left_behind_is_taken_and_one_in_use_is_not(tmp_path: Path) -> None:
    """After kill -9 the next engine starts; two at once do not; a file is never removed."""
    left = tmp_path / "left"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(left))
    with served(at=f"unix:{left}"), pytest.raises(OSError, match="in use"):
        listen(f"unix:{left}", 0)
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OSError, match="not a socket"):
        listen(f"unix:{tmp_path / 'file'}", 0)
    assert (tmp_path / "file").read_text() == "kept"


def test_a_socket_that_accepts_nobody_is_in_use(tmp_path: Path) -> None:
    """An engine that stands still, its queue full: the next one says so, and does not wait for it."""
    path = tmp_path / "full"
    with ExitStack() as stack:
        still = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        still.bind(str(path))
        still.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                one = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                one.setblocking(False)
                one.connect(str(path))
        with pytest.raises(OSError, match="in use"):
            listen(f"unix:{path}", 0)
        assert path.exists()


@pytest.mark.parametrize(
    "odd", ["", "/" + "x" * 200, "{}/gone/socket", "{}", "{}/datagram", "{}/a\0b", "{}/dangling", "{}/fifo"]
)
def test_a_path_for_no_socket_is_one_line(tmp_path: Path, odd: str) -> None:
    """Too long, in no directory, of something else: exit code 2, the setting by name, and what is there stays."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(tmp_path / "datagram"))
        before = sorted(os.listdir(tmp_path))
        with pytest.raises((OSError, ValueError)):
            listen(f"unix:{odd.format(tmp_path)}", 0)
        assert sorted(os.listdir(tmp_path)) == before


# The engine behind it


_CONNECT_AND_HOLD = """
import socket, sys, time
held = []
for _ in range(1000):
    one = socket.socket()
    one.setblocking(False)
    one.connect_ex(("127.0.0.1", int(sys.argv[1])))
    held.append(one)
print("held", flush=True)
time.sleep(600)
"""


FEW = ("prlimit", "--nofile=256")


@pytest.mark.parametrize("victim", ["decoder-0", "receiver"])
def test_a_child_is_replaced_while_a_thousand_connections_are_tried(
    database: str, tmp_path: Path, victim: str
) -> None:
    """With 256 descriptors in all: the port is full, a child dies, its successor works."""
    with embedded_broker() as broker, ExitStack() as stack:
        engine = Engine(broker, database, "--workers", "2", log=tmp_path / "log", through=FEW)
        stack.callback(engine.kill)
        engine.wait_ready()
        before = len(os.listdir(f"/proc/{engine.process.pid}/fd"))
        crowd = subprocess.Popen(
            [sys.executable, "-c", _CONNECT_AND_HOLD, str(engine.port)], stdout=subprocess.PIPE
        )
        stack.callback(crowd.wait)
        stack.callback(crowd.kill)
        assert crowd.stdout is not None
        stack.enter_context(crowd.stdout)
        assert crowd.stdout.readline() == b"held\n"
        old = engine.children()[victim]
        os.kill(old, 9)
        wait_for(lambda: engine.children().get(victim, old) != old, engine, "replaced")
        wait_for(lambda: engine.status().get("health", {}).get("ready"), engine, "ready again")
        # An answer that is being made may have a file of /proc open for a moment.
        most = before + Limits().connections_max
        wait_for(
            lambda: len(os.listdir(f"/proc/{engine.process.pid}/fd")) <= most, engine, "down to its limit"
        )
        assert engine.stop() == 0
    assert not [line for line in engine.lines() if line["event"] in ("metrics_failed", "child_failed")]
