"""What clients do to a server: leave, take nothing, send nothing, come in crowds; and with which certificate they come."""

from __future__ import annotations

import http.client
import json
import os
import re
import resource
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from ingest.store.connection import Connection, connect
from lab.front import Front, ask
from tests.front.conftest import Serve

V4 = "/pdb/query/v4"
# References back into what was found: minutes for each row, unless somebody ends it.
# Twice as many of them as an odd number.
SLOW = r'nodes{certname ~ "^(x+)(x+)(x+)\\1\\2\\3[0-9]*$"}'


def eventually(condition: Callable[[], Any], what: str, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def under_way(connection: Connection) -> int:
    row = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'ingest serve%' AND state = 'active'"
    ).fetchone()
    assert row is not None
    return int(str(row[0]))


def crowd(connection: Connection) -> None:
    """Nodes with names that take a regular expression long."""
    connection.execute(
        "INSERT INTO nodes (certname) SELECT repeat('x', 401) || g FROM generate_series(1, 20000) g"
    )


def ask_and_wait(port: int, path: str) -> socket.socket:
    """A request whose answer nobody reads yet."""
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return client


def all_of(client: socket.socket) -> bytes:
    """Until the other end has closed or reset the connection."""
    received = b""
    with client:
        try:
            while piece := client.recv(1 << 20):
                received += piece
        except ConnectionResetError:
            pass
    return received


def slow_path() -> str:
    from urllib.parse import quote

    return f"{V4}?query={quote(SLOW)}"


def test_a_client_that_leaves_has_its_query_cancelled(serve: Serve, connection: Connection) -> None:
    """Before the first row as well as in the middle of the answer; its connection serves the next."""
    crowd(connection)
    front = serve("--http-queries-max", "1")
    for path in (slow_path(), f"{V4}/nodes"):
        client = ask_and_wait(front.port, path)
        if path == f"{V4}/nodes":
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        else:
            eventually(lambda: under_way(connection), "the query begins")
        client.close()
        eventually(lambda: not under_way(connection), "it ends")
        assert front.get(f"{V4}/nodes", {"limit": "1"}, timeout_s=20).status == 200


def test_who_takes_nothing_is_let_go(serve: Serve, connection: Connection) -> None:
    """What he was sent waits in bounded memory; his place is given to the next."""
    crowd(connection)
    front = serve("--http-queries-max", "1", "--client-timeout-s", "1", "--http-waiting-s", "60")
    client = ask_and_wait(front.port, f"{V4}/nodes")
    assert front.get(f"{V4}/nodes", {"limit": "1"}).status == 200  # waits for its turn
    assert put_away(front)
    eventually(lambda: not put_away(front), "he is let go")
    assert not all_of(client).endswith(b"0\r\n\r\n")  # which would be the end of a whole answer


def put_away(front: Front) -> int:
    """The files without a name in which answers wait."""
    found = []
    for each in Path(f"/proc/{front.process.pid}/fd").iterdir():
        if int(each.name) > 2:
            with suppress(OSError):
                found.append(os.readlink(each))
    return sum(one.endswith("(deleted)") for one in found)


def test_slow_clients_keep_no_connection(serve: Serve, connection: Connection) -> None:
    """However many of them there are, others are answered, and what they have not taken yet is there when they take it."""
    crowd(connection)
    front = serve("--http-queries-max", "2", "--http-waiting-s", "60")
    slow = [ask_and_wait(front.port, f"{V4}/nodes") for _ in range(6)]
    assert front.get(f"{V4}/nodes", {"limit": "1"}).status == 200
    eventually(lambda: not under_way(connection), "nothing is under way for them")
    assert front.get(f"{V4}/nodes", {"limit": "1"}).status == 200
    assert [len(rows_of(client)) for client in slow] == [20000] * 6
    eventually(lambda: not put_away(front), "no file is left")


def test_half_of_the_connections_are_for_short_answers(
    serve: Serve, connection: Connection, database: str
) -> None:
    """However many want one that was long before, as soon as that is known."""
    crowd(connection)
    front = serve("--http-queries-max", "2", "--http-waiting-s", "60")
    assert front.get(f"{V4}/nodes").status == 200
    with connect(database) as other:
        other.execute("BEGIN; LOCK TABLE nodes")
        long = [ask_and_wait(front.port, f"{V4}/nodes") for _ in range(6)]
        eventually(lambda: under_way(connection) == 1, "one is under way")
        assert front.get(f"{V4}/environments").status == 200
        assert under_way(connection) == 1
        other.execute("COMMIT")
    assert lengths_of_all(long) == [20000] * 6


def test_half_of_them_are_for_short_answers_when_nothing_is_known_yet(
    serve: Serve, connection: Connection
) -> None:
    """Right after its start: an answer that turns out to be long waits for its turn among the long ones."""
    crowd(connection)
    front = serve("--http-queries-max", "2", "--http-waiting-s", "60")
    resource.prlimit(front.process.pid, resource.RLIMIT_FSIZE, (99_000, 99_000))  # nothing is put away
    long = [ask_and_wait(front.port, f"{V4}/nodes") for _ in range(6)]
    eventually(lambda: under_way(connection), "they have begun")
    assert front.get(f"{V4}/environments", timeout_s=20).status == 200
    eventually(lambda: under_way(connection) == 1, "one is under way")
    assert lengths_of_all(long) == [20000] * 6


def lengths_of_all(clients: list[socket.socket]) -> list[int]:
    """In rows. All take theirs at the same time: the first to be served need not be the first of the list."""
    with ThreadPoolExecutor(len(clients)) as takers:
        return [len(rows) for rows in takers.map(rows_of, clients)]


def rows_of(client: socket.socket) -> Any:
    answer = http.client.HTTPResponse(client)
    answer.begin()
    with client, answer:
        assert answer.status == 200
        return json.loads(answer.read())


def with_little_room(port: int) -> socket.socket:
    """Has asked for all nodes."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    client.connect(("127.0.0.1", port))
    client.sendall(f"GET {V4}/nodes HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return client


def test_who_takes_little_is_not_let_go(serve: Serve, connection: Connection) -> None:
    """At whatever pace he takes something: not by how much was to be sent at once."""
    crowd(connection)
    front = serve("--client-timeout-s", "2")
    client = with_little_room(front.port)
    taken = 0
    for _ in range(25):  # five seconds, and less than what is sent at once
        taken += len(client.recv(4096))
        time.sleep(0.2)
    assert taken <= 25 * 4096
    assert all_of(client).endswith(b"]\r\n0\r\n\r\n")


def test_who_takes_little_may_take_longer_than_a_query(serve: Serve, connection: Connection) -> None:
    """What has been put away for him costs no statement: it waits as long as he takes some of it."""
    crowd(connection)
    front = serve("--query-timeout-s", "3")
    client = with_little_room(front.port)
    for _ in range(20):
        assert client.recv(4096)
        time.sleep(0.25)
    assert not under_way(connection)
    assert all_of(client).endswith(b"]\r\n0\r\n\r\n")


def test_where_no_file_has_room_a_slow_client_gets_all(serve: Serve, connection: Connection) -> None:
    """He is waited for then."""
    crowd(connection)
    front = serve()
    resource.prlimit(front.process.pid, resource.RLIMIT_FSIZE, (500_000, 500_000))
    client = ask_and_wait(front.port, f"{V4}/nodes")
    time.sleep(2)
    assert under_way(connection)
    found = rows_of(client)
    assert len({row["certname"] for row in found}) == len(found) == 20000


def test_a_crowd_waits_in_a_queue_with_an_end(serve: Serve, connection: Connection) -> None:
    """Whoever finds it full is told so at once, and whoever waits too long in time: 503."""
    crowd(connection)
    front = serve("--http-queries-max", "1", "--http-waiting-max", "1", "--http-waiting-s", "2")
    first = ask_and_wait(front.port, slow_path())
    eventually(lambda: under_way(connection), "the query begins")
    waiting: list[Any] = []
    second = threading.Thread(target=lambda: waiting.append(front.get(f"{V4}/nodes", {"limit": "1"})))
    second.start()
    eventually(lambda: front.get(f"{V4}/nodes").status == 503, "the queue is full")
    second.join()
    assert waiting[0].status in (200, 503)
    assert front.get("/pdb/meta/v1/version").status == 200  # what needs no database is served
    first.close()
    eventually(lambda: front.get(f"{V4}/nodes", {"limit": "1"}).status == 200, "it serves again")


def test_a_query_may_take_so_long_and_no_longer(serve: Serve, connection: Connection) -> None:
    """By the setting, or less where the client says so."""
    crowd(connection)
    front = serve("--query-timeout-s", "3")
    answer = front.get(V4, {"query": SLOW, "timeout": "0.2"})
    assert (answer.status, "took longer than" in answer.text) == (503, True)
    answer = front.get(V4, {"query": SLOW, "timeout": "1000"})
    assert (answer.status, "took longer than" in answer.text) == (503, True)
    assert front.get(V4, {"query": SLOW, "timeout": "x"}).status == 400


def test_a_database_that_goes_away_is_503_and_comes_back(serve: Serve, connection: Connection) -> None:
    """Sessions that were ended are opened anew."""
    front = serve()
    assert front.get(f"{V4}/nodes").status == 200
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'ingest serve%'"
    connection.execute(end)
    statuses = [front.get(f"{V4}/nodes").status for _ in range(3)]
    assert statuses[-1] == 200
    assert set(statuses) <= {200, 503}


def test_heads_are_bounded_in_size_and_in_time(serve: Serve) -> None:
    """A flood of headers is 400; a head that never ends is hung up on."""
    front = serve("--client-timeout-s", "1")
    for flood in (b"X: y\r\n" * 1000, b"X: " + b"y" * 300_000 + b"\r\n", b"no header\r\n", b"\0\xff\r\n"):
        with socket.create_connection(("127.0.0.1", front.port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n" + flood + b"\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 400")
    for beginning in (
        b"",
        b"GET / HTTP/1.1\r\nX: ",
        b"POST /pdb/cmd/v1 HTTP/1.1\r\nContent-Length: 5\r\n\r\n{",
    ):
        with socket.create_connection(("127.0.0.1", front.port)) as client:
            client.sendall(beginning)
            client.settimeout(20)
            assert client.recv(1000)[:12] in (b"", b"HTTP/1.1 408", b"HTTP/1.1 400")
    assert front.get("/pdb/meta/v1/version").status == 200


@pytest.mark.parametrize("endless", [b"GET / HTTP/1.1\r\n" + b"a" * 4_000_000, b"\r\n" * 2_000_000])
def test_what_never_becomes_a_head_is_not_kept(serve: Serve, endless: bytes) -> None:
    """A name without an end is hung up on when it is too long, and not only after a while."""
    front = serve()
    with socket.create_connection(("127.0.0.1", front.port), timeout=10) as client, suppress(ConnectionError):
        client.sendall(endless)
        assert client.recv(1000)[:12] in (b"", b"HTTP/1.1 400")
    assert front.get("/pdb/meta/v1/version").status == 200


def test_idle_clients_are_in_nobodys_way(serve: Serve, connection: Connection) -> None:
    """Two hundred connections on which nothing is asked; and one too many is told so."""
    front = serve("--http-connections-max", "210")
    idle = [socket.create_connection(("127.0.0.1", front.port)) for _ in range(200)]
    assert front.get(f"{V4}/nodes").status == 200
    idle += [socket.create_connection(("127.0.0.1", front.port)) for _ in range(15)]
    assert front.get(f"{V4}/nodes").status == 503
    for client in idle:
        client.close()
    eventually(lambda: front.get(f"{V4}/nodes").status == 200, "they have left")


def peak_kb(front: Front) -> int:
    return int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{front.process.pid}/status").read_text())[0])


def test_a_large_answer_takes_no_large_memory(serve: Serve, connection: Connection) -> None:
    """Tens of megabytes go through a process of some tens of megabytes."""
    connection.execute(
        "INSERT INTO nodes (certname) SELECT repeat('x', 401) || g FROM generate_series(1, 60000) g"
    )
    front = serve()
    front.get(f"{V4}/nodes", {"limit": "10"})
    before = peak_kb(front)
    answer = front.get(f"{V4}/nodes")
    assert len(answer.json) == 60000
    assert len(answer.body) > 40_000_000
    assert peak_kb(front) - before < 12_000


def test_several_processes_serve_one_socket(serve: Serve) -> None:
    """And end with their parent's signal."""
    front = serve("--http-workers", "2")
    eventually(lambda: _status(front) == 200, "they serve")
    assert [front.get("/pdb/meta/v1/version").status for _ in range(10)] == [200] * 10
    assert front.stop() == 0


def _status(front: Front) -> int:
    try:
        return front.get("/pdb/meta/v1/version").status
    except OSError:
        return 0


# TLS


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    found = trustme.CA()
    found.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = found.issue_cert("localhost")
    server.private_key_pem.write_to_path(tmp_path / "key.pem")
    server.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    return found


def tls_flags(directory: Path) -> list[str]:
    return [
        "--ssl-cert", str(directory / "cert.pem"), "--ssl-key", str(directory / "key.pem"),
        "--ssl-ca-cert", str(directory / "ca.pem"),
    ]  # fmt: skip


def get_tls(
    port: int, directory: Path, issuer: trustme.CA | None, name: str = "puppet.example.com"
) -> tuple[int, str]:
    context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
    if issuer is not None:
        issuer.issue_cert(common_name=name).configure_cert(context) if name else None
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=20)
    try:
        connection.request("GET", f"{V4}/nodes")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_only_certificates_of_the_authority_get_in(
    serve: Serve, authority: trustme.CA, tmp_path: Path
) -> None:
    """Not without one, not with one of another, not over plain HTTP."""
    front = serve(*tls_flags(tmp_path))
    assert get_tls(front.port, tmp_path, authority) == (200, "[]")
    for issuer in (None, trustme.CA()):
        with pytest.raises(OSError):  # noqa: PT011  what is said differs: an alert, a reset, an end
            get_tls(front.port, tmp_path, issuer)
    with pytest.raises((OSError, http.client.HTTPException)):
        front.get(f"{V4}/nodes")


def test_a_revoked_certificate_is_kept_out(serve: Serve, authority: trustme.CA, tmp_path: Path) -> None:
    """By the list of its authority; another of the same name gets in."""
    revoked, valid = (authority.issue_cert(common_name="puppet.example.com") for _ in range(2))
    serial = x509.load_pem_x509_certificate(revoked.cert_chain_pems[0].bytes()).serial_number
    (tmp_path / "crl.pem").write_bytes(crl_of(authority, serial))
    front = serve(*tls_flags(tmp_path), "--ssl-crl", str(tmp_path / "crl.pem"))
    for leaf, gets_in in ((valid, True), (revoked, False)):
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        leaf.configure_cert(context)
        try:
            with closing(
                http.client.HTTPSConnection("localhost", front.port, context=context, timeout=20)
            ) as client:
                client.request("GET", f"{V4}/nodes")
                status = client.getresponse().status
        except OSError:
            status = 0
        assert status == (200 if gets_in else 0)


def crl_of(authority: trustme.CA, serial: int) -> bytes:
    ca = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    key: Any = load_pem_private_key(authority.private_key_pem.bytes(), None)
    now = datetime.now(UTC)
    entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.subject)
        .last_update(now - timedelta(hours=1))
        .next_update(now + timedelta(days=1))
        .add_revoked_certificate(entry)
        .sign(key, hashes.SHA256())
    )
    return crl.public_bytes(Encoding.PEM)


def test_the_allowlist_lets_in_whom_it_names(serve: Serve, authority: trustme.CA, tmp_path: Path) -> None:
    """Exact names, one a line; others are 403 with words that lead to the file."""
    allowed = tmp_path / "allowlist"
    allowed.write_text("\n# compilers\npuppet.example.com  \nother.example.com\n")
    front = serve(*tls_flags(tmp_path), "--certificate-allowlist", str(allowed))
    assert get_tls(front.port, tmp_path, authority)[0] == 200
    for name in ("Puppet.example.com", "puppet.example.com.evil", "x"):
        status, text = get_tls(front.port, tmp_path, authority, name)
        assert (status, "certificate allowlist" in text, name in text) == (403, True, True)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--listen", "0.0.0.0:0"], "--listen: without TLS everybody"),
        (["--listen", "nonsense"], "--listen: 'nonsense' is not HOST:PORT"),
        (["--listen", "nowhere.invalid:1"], "--listen: 'nowhere.invalid' is no address"),
        (["--ssl-cert", "/nowhere"], "--ssl-key: is needed with --ssl-cert"),
        (
            ["--ssl-cert", "/nowhere", "--ssl-key", "/nowhere", "--ssl-ca-cert", "/nowhere"],
            "--ssl-cert: /nowhere: No such file",
        ),
        (["--certificate-allowlist", "/nowhere"], "--certificate-allowlist: /nowhere: No such file"),
        (["--database", "host=127.0.0.1 port=1"], "no database"),
        (["--queue-type", "carrier-pigeon"], "--queue-type: no transport is called 'carrier-pigeon'"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(
    database: str, tmp_path: Path, flags: list[str], said: str
) -> None:
    """Before anything is served."""
    front = Front(database, "stomp://127.0.0.1:1", *flags, log=tmp_path / "log")
    assert front.process.wait(30) in (2, 3)
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def test_what_is_said_of_the_service(serve: Serve, connection: Connection) -> None:
    """Version, time, state, and the numbers that dashboards read by PuppetDB's names."""
    crowd(connection)
    front = serve()
    assert front.get("/pdb/meta/v1/version").json == {"version": "7.12.1"}
    assert front.get("/pdb/meta/v1/version/latest").json["newer"] is False
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", front.get("/pdb/meta/v1/server-time").json["server_time"]
    )
    assert front.get("/pdb/meta/v1/version", {"x": "1"}).text == "Unsupported query parameter 'x'"
    assert front.get("/pdb/meta/v1/version", headers={"Accept": "text/html"}).status == 406
    assert front.get("/status/v1/simple").text == "running"
    assert front.get("/status/v1/simple/puppetdb-status").text == "running"
    assert front.get("/status/v1/simple/x").status == 404
    state = front.get("/status/v1/services/puppetdb-status").json
    assert (state["service_name"], state["state"], state["status"]["read_db_up?"]) == (
        "puppetdb-status",
        "running",
        True,
    )
    assert front.get("/status/v1/services").json["puppetdb-status"] == {
        k: v for k, v in state.items() if k != "service_name"
    }
    assert front.get("/status/v1/services/x").json["kind"] == "service-not-found"
    assert (
        front.get("/status/v1/services", {"level": "debug"}).json["status-service"]["detail_level"] == "debug"
    )
    for path, wrong in (("services", "level"), ("services", "timeout"), ("simple", "timeout")):
        assert front.get(f"/status/v1/{path}", {wrong: "x"}).status == 400
    assert front.post("/status/v1/services", {}).status == 404
    population = "puppetlabs.puppetdb.population:name=num-nodes"
    for written in (population, "puppetlabs.puppetdb.population%3Aname%3Dnum-nodes"):
        assert front.get(f"/metrics/v2/read/{written}").json["value"] == {"Value": 20000}
    assert front.get(f"/metrics/v2/read/{population}/Value").json["value"] == 20000
    assert front.get("/metrics/v2/read/x:name=y").json["status"] == 404
    listed = front.get("/metrics/v2/list").json["value"]
    assert "name=num-resources" in listed["puppetlabs.puppetdb.population"]
    assert front.get("/metrics/v2/exec/java.lang:type=Memory/gc").status == 403
    for path in ("/pdb", "/pdb/query/v3", "/pdb/cmd/v2", "/status", "/x" * 1000, "/%ff%00/..%2f"):
        assert front.get(path).status == 404, path
    assert json.loads(front.get("/metrics/v2").body)["status"] == 200


def test_agents_of_monitors_read_many_numbers_at_once(serve: Serve) -> None:
    """As Jolokia's clients post it; patterns, attributes, and what is not there, each with a status of its own."""
    front = serve()
    nodes, depth = "puppetlabs.puppetdb.population:name=num-nodes", "puppetlabs.puppetdb.mq:name=global.depth"
    posted = [
        {"type": "read", "mbean": nodes, "attribute": "Value"},
        {"type": "READ", "mbean": depth},
        {"type": "read", "mbean": "puppetlabs.puppetdb.population:*"},
        {"type": "search", "mbean": "*:name=num-*"},
        {"type": "list", "path": "puppetlabs.puppetdb.mq"},
        {"type": "version"},
        {"type": "read", "mbean": nodes, "attribute": "Nope"},
        {"type": "read", "mbean": "x:name=y"},
        {"type": "read"},
        {"type": "exec"},
        5,
    ]
    answers = front.post("/metrics/v2", posted).json
    assert [one["status"] for one in answers] == [200, 200, 200, 200, 200, 200, 404, 404, 400, 400, 400]
    assert answers[0]["value"] == 0
    assert answers[1]["value"] == {"Count": 0}
    assert answers[2]["value"][nodes] == {"Value": 0}
    assert nodes in answers[3]["value"]
    assert list(answers[4]["value"]["name=global.depth"]["attr"]) == ["Count"]
    assert front.post("/metrics/v2", posted[0]).json["request"] == posted[0]
    assert front.get(f"/metrics/v2/read/{nodes}/Nope").json["status"] == 404
    assert nodes in front.get("/metrics/v2/search/puppetlabs.puppetdb.population:*").json["value"]
    for body in (b"{", b"[" * 5000, b"", b'"x"', json.dumps([{}] * 51).encode()):
        assert ask(front.port, "/metrics/v2", method="POST", body=body).json["status"] == 400, body[:20]
