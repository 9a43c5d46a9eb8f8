"""/pdb/cmd/v1: what is answered with 200 is at the broker as the engine reads it, and nothing else is."""

from __future__ import annotations

import gzip
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from ingest.front.commands import AT_ONCE_MAX
from ingest.store.connection import Connection
from lab.engine import Start
from lab.front import Answer, Front
from lab.stomp_client import Client
from lab.store_model import resource, wire_body
from tests.engine.conftest import start as start
from tests.front.conftest import Serve

CMD = "/pdb/cmd/v1"
QUERY = {"command": "replace_catalog", "version": "9", "certname": "n1"}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def payload(minute: int = 1, certname: str = "n1") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(wire_body(certname, minute, [resource("/a")]))["payload"]
    return found


def send(
    front: Front, body: bytes, parameters: dict[str, str] | None = None, timeout_s: float = 60, **headers: str
) -> Answer:
    """As a terminus does."""
    sent = {"Content-Type": "application/json; charset=utf-8", "Accept": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return front.get(CMD, parameters, method="POST", body=body, headers=sent, timeout_s=timeout_s)


@pytest.fixture
def queued(broker: str) -> Iterator[Any]:
    """Takes the next message that the broker has."""
    with Client(int(urlsplit(broker).port or 0), "", "") as client:
        client.send("SUBSCRIBE", {"destination": "/queue/catalog", "id": "0", "ack": "auto"})
        yield lambda: client.frame(10)


def test_what_is_sent_is_at_the_broker_in_an_envelope(serve: Serve, queued: Any) -> None:
    """In whatever form it came; the payload byte for byte."""
    front = serve()
    body = json.dumps(payload(), indent=1).encode()
    forms = [
        send(front, body, QUERY),
        send(front, body, QUERY | {"checksum": "abc", "producer-timestamp": "2026-01-01T00:00:00Z"}),
        send(front, body, QUERY | {"producer-timestamp": "", "command": "replace catalog"}),
        send(
            front, gzip.compress(body), QUERY, Content_Encoding="gzip", X_Uncompressed_Length=str(len(body))
        ),
        send(front, body, QUERY, Connection="close"),
    ]
    for answer in forms:
        assert answer.status == 200, answer.text
        assert UUID.fullmatch(answer.json["uuid"])
        frame = queued()
        assert frame.headers["certname"] == "n1"
        assert frame.headers["command"] == "replace catalog"
        assert (
            frame.body
            == b'{"command": "replace catalog", "version": 9, "certname": "n1","payload":' + body + b"}"
        )


def test_the_older_form_has_everything_in_its_body(serve: Serve, queued: Any) -> None:
    """Foreman's plugin sends it so."""
    front = serve()
    whole = {
        "command": "deactivate node",
        "version": 3,
        "payload": {"certname": "n1", "producer_timestamp": "2026-01-01"},
    }
    answer = send(front, json.dumps(whole).encode())
    assert answer.status == 200, answer.text
    assert json.loads(queued().body) == whole


@pytest.mark.parametrize(
    ("command", "version", "destination"),
    [
        ("replace facts", "5", "/queue/facts"),
        ("replace_facts", "5", "/queue/facts"),
        ("store report", "8", "/queue/reports"),
        ("replace catalog inputs", "1", "/queue/catalog"),
        ("configure expiration", "1", "/queue/catalog"),
    ],
)
def test_a_command_goes_to_the_queue_of_its_kind(
    serve: Serve, broker: str, command: str, version: str, destination: str
) -> None:
    """That is told from its name, in either form of it; in an envelope of the older form too."""
    front = serve()
    payload = {"certname": "n1", "producer_timestamp": "2026-01-01T00:00:00Z"}
    answers = [
        send(front, json.dumps(payload).encode(), {"command": command, "version": version, "certname": "n1"}),
        send(front, json.dumps({"command": command, "version": int(version), "payload": payload}).encode()),
    ]
    assert [answer.status for answer in answers] == [200, 200], [answer.text for answer in answers]
    with Client(int(urlsplit(broker).port or 0), "", "") as client:
        client.send("SUBSCRIBE", {"destination": destination, "id": "0", "ack": "auto"})
        for _ in answers:
            assert json.loads(client.frame(10).body)["payload"] == payload


WRONG: list[tuple[dict[str, str], bytes, int, str]] = [
    ({"version": "9", "certname": "n1"}, b"{}", 400, "submitted without query parameters (old format)"),
    ({"command": "replace_catalog", "certname": "n1"}, b"{}", 400, "missing required parameters: version"),
    (QUERY | {"foo": "1"}, b"{}", 400, "has invalid parameters: foo"),
    (QUERY | {"certname": " "}, b"{}", 400, "Certname must be a non-empty string"),
    (
        QUERY | {"command": "drop_tables"},
        b"{}",
        400,
        "Command must be one of: configure expiration, deactivate node, ",
    ),
    (QUERY | {"version": "x"}, b"{}", 400, "Version must be a valid integer"),
    (
        QUERY | {"version": "5"},
        b"{}",
        400,
        'Version 5 of command \\"replace catalog\\" is retired. The minimum supported',
    ),
    (QUERY | {"secondsToWaitForCompletion": "x"}, b"{}", 400, "must be a number"),
    ({}, b'{"command": "deactivate node"}', 400, "required keys: command, version, payload"),
    (
        {},
        b'{"command": "deactivate node", "version": 3, "payload": "n1"}',
        400,
        "payload value must be a JSON map",
    ),
    ({}, b"nonsense", 400, "required keys: command, version, payload"),
]


def test_what_is_no_command_is_refused_in_json(serve: Serve) -> None:
    """With the words of PuppetDB, before the broker hears of it."""
    front = serve()
    for parameters, body, status, said in WRONG:
        answer = send(front, body, parameters)
        assert answer.status == status, (parameters, answer.text)
        assert said in answer.text
        assert set(answer.json) == {"error"}
    assert send(front, b"{}", QUERY, Content_Type="text/plain").status == 415
    assert send(front, b"{}", QUERY, Content_Encoding="br").status == 415
    assert send(front, b"{}", QUERY, Accept="text/html").status == 406
    assert send(front, b"not gzip at all", QUERY, Content_Encoding="gzip").status == 400
    assert send(front, gzip.compress(b"{}" * 1000)[:-20], QUERY, Content_Encoding="gzip").status == 400
    assert front.get(CMD, QUERY).status == 405


def test_a_body_that_is_too_large_is_heard_out_and_refused(serve: Serve, queued: Any) -> None:
    """413 after the last byte; of a gzip bomb, what it would become counts. Memory does not grow with either."""
    front = serve("--body-bytes-max", "20000000")
    assert send(front, b"x" * 30_000_000, QUERY).status == 413
    bomb = gzip.compress(b"\0" * 400_000_000, 9)
    assert send(front, bomb, QUERY, Content_Encoding="gzip").status == 413
    large = b'"' + b"x" * 19_000_000 + b'"'
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(send(front, large, QUERY))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status for answer in answers] == [200] * 6
    assert len(queued().body) > 19_000_000
    peak_kb = int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{front.process.pid}/status").read_text())[0])
    assert peak_kb < 250_000, peak_kb  # six at once are 114 MB; what is mapped of files counts too


def test_a_broker_that_is_away_is_503_in_time_and_nothing_is_kept(
    serve: Serve, connection: Connection
) -> None:
    """When it is there again the next command goes through; the one before is its sender's to send again."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        front = serve("--queue-source", f"stomp://127.0.0.1:{port}", "--command-timeout-s", "1")
        begun = time.monotonic()
        answer = send(front, b"{}", QUERY)
        assert (answer.status, set(answer.json)) == (503, {"error"})
        assert "receipt" in answer.json["error"] or "away" in answer.json["error"]
        assert time.monotonic() - begun < 10
    nobody = serve("--queue-source", f"stomp://127.0.0.1:{port}")
    answer = send(nobody, b"{}", QUERY)
    assert answer.status == 503
    assert "the broker is away" in answer.json["error"]
    assert nobody.get("/status/v1/simple").text == "error"
    assert nobody.get("/pdb/query/v4/nodes").status == 200


def test_bodies_that_never_end_hold_up_no_other(serve: Serve, queued: Any) -> None:
    """However many clients begin a command and fall silent."""
    front = serve()
    head = (
        b"POST /pdb/cmd/v1?command=replace_catalog&version=9&certname=n2 HTTP/1.1\r\nHost: x\r\n"
        b'Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n'
    )
    silent = [socket.create_connection(("127.0.0.1", front.port)) for _ in range(2 * AT_ONCE_MAX)]
    try:
        for client in silent:
            client.sendall(head)
        # Before they are given up, which is after half a minute.
        assert send(front, json.dumps(payload()).encode(), QUERY, timeout_s=15).status == 200
        assert json.loads(queued().body)["payload"] == payload()
    finally:
        for client in silent:
            client.close()


def test_completion_is_waited_for(serve: Serve, start: Start, connection: Connection) -> None:
    """Until the store has it; and in time when it does not come."""
    front = serve()
    wait = {"secondsToWaitForCompletion": "0.3"}
    answer = send(front, json.dumps(payload(1)).encode(), QUERY | wait)
    assert (answer.status, answer.json["processed"], answer.json["timed_out"]) == (503, False, True)
    start()
    answer = send(front, json.dumps(payload(2)).encode(), QUERY | {"secondsToWaitForCompletion": "30"})
    assert (answer.status, answer.json["processed"], answer.json["timed_out"]) == (200, True, False)
    assert front.get("/pdb/query/v4/nodes/n1").json["deactivated"] is None
    facts = {"certname": "n2", "environment": "production", "producer": None, "producer_timestamp": "2026-11-01T00:00:00Z",
             "values": {"kernel": "Linux"}}  # fmt: skip
    about = {"command": "replace_facts", "version": "5", "certname": "n2", "secondsToWaitForCompletion": "30"}
    answer = send(front, json.dumps(facts).encode(), about)
    assert (answer.status, answer.json["processed"]) == (200, True)
    assert front.get("/pdb/query/v4/nodes/n2/facts/kernel").json[0]["value"] == "Linux"
    gone = {"certname": "n1", "producer_timestamp": "2030-01-01T00:00:00Z"}
    answer = send(
        front,
        json.dumps(gone).encode(),
        {"command": "deactivate_node", "version": "3", "certname": "n1", "secondsToWaitForCompletion": "30"},
    )
    assert answer.json["processed"] is True
    assert [one["certname"] for one in front.get("/pdb/query/v4/nodes").json] == ["n2"]
    assert front.get("/pdb/query/v4/nodes/n1").json["deactivated"] is not None
