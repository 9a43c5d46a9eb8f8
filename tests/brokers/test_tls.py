"""TLS to the brokers: checked by default, and one line that names the setting when something is wrong."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest.store.connection import Connection
from ingest.transport.stomp.client import StompClient
from ingest.transport.stomp.opening import Endpoint
from lab import real_catalogs as corpus
from lab.brokers import ActiveMQ, Broker
from lab.certificates import Certificates
from lab.engine import Start
from lab.store_model import expected, stored
from tests.brokers.command import ingest
from tests.brokers.room import Room


@pytest.fixture(params=["rabbitmq", "activemq", "embedded-tls"])
def broker(request: pytest.FixtureRequest, running: Callable[[str], Broker]) -> Broker:
    return running(request.param)


@pytest.fixture
def catalogs(tmp_path: Path) -> list[Path]:
    files = []
    for role in corpus.ROLES:
        files.append(tmp_path / f"{role}.json")
        files[-1].write_bytes(corpus.body(role, 1, "wire"))
    return files


def assert_travels(
    start: Start, connection: Connection, url: str, queue: str, catalogs: list[Path], *flags: str
) -> None:
    """Published and stored over TLS; only what the flags say is known of certificates."""
    done = ingest("publish", *catalogs, "--queue-source", url, "--destination", queue, *flags)
    assert done.returncode == 0, done.stderr
    engine = start(url, *flags)
    assert engine.wait_settled(len(catalogs))["stored"] == len(catalogs)
    for file in catalogs:
        wire = expected(file.read_bytes())
        assert stored(connection, wire["certname"]) == wire
    assert engine.stop() == 0


def refused(database: str, url: str, *flags: str) -> str:
    """The line by which ``ingest run`` says that a setting is wrong."""
    done = ingest("run", "--queue-source", url, "--database", database, "--metrics-port", "0", *flags)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    line = done.stderr.strip().splitlines()[-1]
    print(line)
    return line


def test_catalogs_travel_over_tls(
    broker: Broker, queue: str, start: Start, connection: Connection, catalogs: list[Path],
    certificates: Certificates,
) -> None:  # fmt: skip
    """With the tests' own authority; real catalogs of up to 850 KB, which are many TLS records each."""
    ca = str(certificates.ca_file)
    assert_travels(start, connection, broker.tls_url(), queue, catalogs, "--tls-ca-file", ca)


def test_a_stranger_s_certificate_is_not_trusted(
    broker: Broker, database: str, certificates: Certificates
) -> None:
    """Neither by default nor with another authority's file; the line names --tls-ca-file."""
    for flags in ([], ["--tls-ca-file", str(certificates.other_ca_file)]):
        line = refused(database, broker.tls_url(), *flags)
        assert "--tls-ca-file: the certificate of localhost:" in line
        assert "is not trusted" in line


def test_a_certificate_for_another_name_is_not_trusted(
    broker: Broker, database: str, certificates: Certificates
) -> None:
    """It is for localhost, and we asked for 127.0.0.1; the line names the address."""
    url = broker.tls_url().replace("localhost", "127.0.0.1")
    line = refused(database, url, "--tls-ca-file", str(certificates.ca_file))
    assert "--queue-source: the certificate of 127.0.0.1:" in line
    assert "not valid for '127.0.0.1'" in line


def test_checks_are_off_only_when_asked(broker: Broker, queue: str, catalogs: list[Path]) -> None:
    """--no-tls-verify takes a certificate of an unknown authority for another name."""
    url = broker.tls_url().replace("localhost", "127.0.0.1")
    for flags, code in ((["--no-tls-verify"], 0), ([], 2)):
        done = ingest("publish", catalogs[0], "--queue-source", url, "--destination", queue, *flags)
        assert done.returncode == code, done.stderr


@pytest.fixture
def demanding(running: Callable[[str], Broker]) -> str:
    """The URL of a broker that demands a certificate of its clients."""
    broker = running("activemq")
    assert isinstance(broker, ActiveMQ)
    return broker.tls_url(broker.client_tls_port)


def test_a_client_s_certificate_lets_in(
    demanding: str, queue: str, start: Start, connection: Connection, catalogs: list[Path],
    certificates: Certificates,
) -> None:  # fmt: skip
    """With --tls-cert-file, which may hold the key too."""
    flags = ["--tls-ca-file", str(certificates.ca_file), "--tls-cert-file", str(certificates.client_file)]
    assert_travels(start, connection, demanding, queue, catalogs[:1], *flags)


def test_without_a_certificate_that_the_broker_trusts_nobody_gets_in(
    demanding: str, database: str, certificates: Certificates
) -> None:
    """None, or one of an unknown authority: the line names --tls-cert-file."""
    ca = ["--tls-ca-file", str(certificates.ca_file)]
    for flags in ([], ["--tls-cert-file", str(certificates.other_client_file)]):
        line = refused(database, demanding, *ca, *flags)
        assert "--tls-cert-file: localhost:" in line
        assert "wants a certificate that it trusts" in line


def test_the_wrong_port_is_one_line(broker: Broker, database: str, running: Callable[[str], Broker]) -> None:
    """TLS to a port without it, and STOMP to a port with it: the line has the address and its setting."""
    plain = running("embedded" if broker.name == "embedded-tls" else broker.name)
    wrong = {
        plain.port: plain.tls_url(plain.port),
        broker.tls_port: broker.tls_url().replace("stomp+ssl", "stomp"),
    }
    for port, url in wrong.items():
        done = ingest("run", "--queue-source", url, "--database", database, "--metrics-port", "0",
                      "--connect-timeout-s", "1")  # fmt: skip
        line = done.stderr.strip().splitlines()[-1]
        print(line)
        assert done.returncode in (2, 3)  # a broker that only closes, or says nothing, may be in trouble
        assert "Traceback" not in done.stderr
        assert f"localhost:{port}" in line
        assert "--queue-source" in line


@pytest.mark.parametrize("setting", ["tls_ca_file", "tls_cert_file"])
def test_a_file_that_is_no_certificate_is_named(database: str, tmp_path: Path, setting: str) -> None:
    """Not there, or not PEM: the setting and the file are in the line."""
    flag = f"--{setting.replace('_', '-')}"
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("nothing")
    for file in (rubbish, tmp_path / "missing.pem"):
        line = refused(database, "stomp+ssl://localhost:1", flag, str(file))
        assert f"{flag}: {file}: " in line
        assert "_ssl.c" not in line


@pytest.fixture
def tls_wire(certificates: Certificates) -> Iterator[tuple[StompClient, ssl.SSLSocket, Room]]:
    """A connection over TLS, and the broker's end of it in the test's hands."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server_file)
    held: list[ssl.SSLSocket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            held.append(context.wrap_socket(server.accept()[0], server_side=True))
            held[0].recv(4096)
            held[0].sendall(b"CONNECTED\nversion:1.2\n\n\0")

        accepting = threading.Thread(target=accept)
        accepting.start()
        room = Room()
        trusting = ssl.create_default_context(cafile=certificates.ca_file)
        connection = StompClient(
            Endpoint("localhost", server.getsockname()[1], None, None, "/", trusting),
            connect_timeout_s=30, heartbeat_s=0, body_bytes_max=1 << 20, space=room,
        )  # fmt: skip
        accepting.join()
    yield connection, held[0], room
    connection.close()
    held[0].close()


def test_what_tls_has_decrypted_is_not_forgotten(
    tls_wire: tuple[StompClient, ssl.SSLSocket, Room],
) -> None:
    """The socket is empty while messages still are in OpenSSL's hands: ``unread`` tells, and none is missing when a
    reader takes them one by one."""
    connection, broker, room = tls_wire
    bodies = [f"body {number}".encode() * 100 for number in range(500)]
    frames = [b"MESSAGE\nmessage-id:%d\n\n%s\0" % (number, body) for number, body in enumerate(bodies)]
    sender = threading.Thread(target=broker.sendall, args=(b"".join(frames),))
    sender.start()
    found: list[bytes] = []
    while len(found) < len(bodies):
        if not connection.unread:
            connection._socket.setblocking(True)
            connection._socket.settimeout(30)
            assert connection._incoming._fill_buffer()  # a selector's part: something came
            connection._socket.setblocking(False)
        for message in connection.read():
            found.append(room.body(message))
            break
    sender.join()
    assert found == bodies
