"""Whatever arrives: a decoder makes work of it or a quarantine, and nothing else ever happens.

INGEST_FUZZ_EXAMPLES sets how many mutants are tried (``make fuzz``: many, and with atheris where it installs).
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from ingest.core.delivery.work import Claim, Full, Outcome, Quarantine, Settled
from ingest.engine.kinds import open_lane, works_type
from ingest.errors import Rejected
from ingest.store.connection import Connection
from ingest.store.lane import Lane, LaneSettings
from ingest.store.quarantine import QuarantineRow
from lab import real_catalogs as corpus
from lab.store_model import resource, wire_body
from tests.faults.decoding import Bench

WORKS = msgspec.msgpack.Decoder(works_type())
EXAMPLES = int(os.environ.get("INGEST_FUZZ_EXAMPLES", "300"))
MUTANTS = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES <= 300
)

SMALL = wire_body(
    "n.example.com", 1, [resource("/a", parameters={"x": [1, {"y": None}]}), resource("/b")], [(0, 1, "before")]
)  # fmt: skip
TIME = "2026-01-01T00:00:00Z"
EVENT = {
    "status": "success",
    "timestamp": TIME,
    "name": "x",
    "property": "p",
    "new_value": ["a"],
    "old_value": 1,
    "message": "m",
}
PAYLOADS: list[tuple[str, int, dict[str, Any]]] = [
    ("deactivate node", 3, {"certname": "n", "producer_timestamp": TIME}),
    ("configure expiration", 1, {"certname": "n", "expire": {"facts": True}, "producer_timestamp": TIME}),
    ("replace catalog inputs", 1, {"certname": "n", "producer_timestamp": TIME, "catalog_uuid": None, "inputs": [["a", "b"]]}),
    ("replace facts", 5, {
        "certname": "n", "environment": "e", "producer": "p", "producer_timestamp": TIME,
        "values": {"a": 1, "os": {"b": [1, {"c": "d"}]}}, "package_inventory": [["a", "1", "b"]],
    }),
    ("store report", 8, {
        "certname": "n", "start_time": TIME, "end_time": TIME, "producer_timestamp": TIME, "status": "changed",
        "metrics": [{"category": "time", "name": "total", "value": 1.5}],
        "logs": [{"message": "m", "level": "notice", "source": "p", "tags": ["a"], "file": "f", "line": 3, "time": TIME}],
        "resources": [{
            "resource_type": "File", "resource_title": "/a", "skipped": False, "file": "f", "line": 3, "timestamp": TIME,
            "containment_path": ["Stage[main]", "a"], "events": [EVENT],
        }],
    }),
    ("store report", 4, {
        "certname": "n", "start-time": TIME, "end-time": TIME, "report-format": 4,
        "resource-events": [{"status": "success", "timestamp": TIME, "resource-type": "File", "resource-title": "a"}],
    }),
]  # fmt: skip
OTHERS = [
    json.dumps({"command": command, "version": version, "payload": payload}).encode()
    for command, version, payload in PAYLOADS
]
SEEDS = [
    SMALL,
    *OTHERS,
    b'{"document_type":"Catalog","data":{"name":"n","version":1,"tags":[],"classes":[],"edges":[],"resources":[]},'
    b'"metadata":{"api_version":1}}',
    corpus.body("minimal-01", 1, "wire"),
    corpus.body("minimal-01", 1, "native"),
]
WEIRD: list[Any] = [
    None, True, -1, 0, 2**63, 2**70, -(2**80), 1e308, 1.5, "", "\0", "\ud800", "é" * 3000, "x" * 70_000, [], {}, [[]],
    {"": ""}, {"type": "File", "title": "/a"}, {"__ptype": "Sensitive", "__pvalue": 1}, "2026-13-45T99:99:99Z",
    "9999-12-31T23:59:59.999999+23:59", "0001-01-01T00:00:00-23:59", "replace catalog", "deactivate node", [None] * 1000,
    json.loads("[" * 200 + "]" * 200),
]  # fmt: skip
BYTES = [b"\0", b"\xff", b"\xed\xa0\x80", b"\xc3", b'"', b"\\", b"\\u0000", b"\\ud83d", b"{", b"}", b"[", b"]", b",", b":", b"-",
         b"1e999", b"NaN", b"Infinity", b"1" * 400, b"[" * 5000, b'{"a":' * 3000, b"/*", b"\r\n", b" " * 1000]  # fmt: skip
# The receiver has read them as UTF-8, replacing what is not.
HEADERS = st.dictionaries(
    st.sampled_from(["certname", "producer", "producer_timestamp", "transaction_uuid", "environment", "command", "version"]),
    st.sampled_from(["", "n.example.com", "x" * 1024, "\ufffd", "\0", "replace catalog", "9", "-1", "2026-01-01T00:00:00Z",
                     "0001-01-01T00:00:00-23:59", "Ω", "a/b", "not-a-uuid"]),
    max_size=4,
)  # fmt: skip


@st.composite
def mutants(draw: st.DrawFn, seeds: list[bytes] = SEEDS) -> bytes:
    body = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 3))):
        body = draw(_by_structure(body) if draw(st.booleans()) else _by_bytes(body))
    return body


@st.composite
def _by_structure(draw: st.DrawFn, body: bytes) -> bytes:
    """One value, somewhere in the document, replaced, removed or copied beside itself."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return body
    places: list[tuple[Any, Any]] = []
    _collect(document, places)
    if not places:
        return body
    holder, key = places[draw(st.integers(0, len(places) - 1))]
    action = draw(st.sampled_from(("replace", "remove", "copy", "rename")))
    if action == "replace":
        holder[key] = draw(st.sampled_from(WEIRD))
    elif action == "remove":
        del holder[key]
    elif isinstance(holder, list):
        holder.append(holder[key])
    else:
        holder[draw(st.sampled_from(("type", "title", "x", "\0", "\ud800", "certname", "resources")))] = (
            holder[key]
        )
    return json.dumps(document, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


@st.composite
def _by_bytes(draw: st.DrawFn, body: bytes) -> bytes:
    at = draw(st.integers(0, len(body)))
    length = draw(st.integers(0, 40))
    match draw(st.sampled_from(("cut", "insert", "overwrite", "delete", "repeat"))):
        case "cut":
            return body[:at]
        case "insert":
            return body[:at] + draw(st.sampled_from(BYTES)) + body[at:]
        case "overwrite":
            new = draw(st.binary(max_size=8))
            return body[:at] + new + body[at + len(new) :]
        case "delete":
            return body[:at] + body[at + length :]
        case _:
            return body[:at] + body[at : at + length] * 20 + body[at + length :]


def _collect(value: Any, places: list[tuple[Any, Any]], depth: int = 0) -> None:
    if depth > 150 or len(places) > 20_000:
        return
    for key in (
        range(len(value)) if isinstance(value, list) else list(value) if isinstance(value, dict) else ()
    ):
        places.append((value, key))
        _collect(value[key], places, depth + 1)


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


@MUTANTS
@given(body=mutants(), headers=HEADERS, complete=st.booleans())
def test_every_body_becomes_work_or_a_quarantine(
    bench: Bench, body: bytes, headers: dict[str, str], complete: bool
) -> None:
    """It survives the pipe to the writer, it has a lane, and a quarantined one can be redacted."""
    started_s = time.process_time()
    work = bench.take(body, headers, complete=complete)
    (again,) = WORKS.decode(msgspec.msgpack.encode([work]))
    assert again.delivery == work.delivery
    bench.slowest_s = max(bench.slowest_s, time.process_time() - started_s)


def test_the_slowest_mutant_stays_far_below_the_cpu_limit(bench: Bench) -> None:
    """A figure for the reader: the limit that kills is another test's."""
    print(f"\nslowest mutant {bench.slowest_s * 1000:.0f} ms of {bench.config.decode_cpu_max_s:.0f} s")
    assert bench.slowest_s < bench.config.decode_cpu_max_s


@settings(MUTANTS, max_examples=max(50, EXAMPLES // 5), suppress_health_check=list(HealthCheck))
@given(body=mutants([SMALL, *OTHERS]), headers=HEADERS)
def test_every_work_is_settled_or_refused_by_postgresql(
    lane: Lane, bench: Bench, body: bytes, headers: dict[str, str]
) -> None:
    """What a decoder makes of a mutant, PostgreSQL stores, or refuses with a word; a refused one has a place."""
    work = bench.take(body, headers, complete=True)
    try:
        settled = lane.apply([bench.row(work, body) if isinstance(work, Quarantine) else work])
    except Rejected as rejected:
        if isinstance(work, Quarantine):
            raise  # its row must always find a place
        verdict = (rejected.reason, rejected.text)
        settled = lane.apply([bench.row(bench.take(body, headers, verdict=verdict), body)])
    assert settled[0].outcome is not Outcome.REDO
    assert settled[0] == Settled(work.delivery, settled[0].outcome) or isinstance(work, Claim | Full)


@pytest.fixture
def lane(connection: Connection) -> Lane:
    return open_lane(connection, LaneSettings(1000))


def test_the_row_of_a_quarantined_body_is_what_a_writer_would_make(bench: Bench) -> None:
    """The bench uses the writer's own code: no twin that drifts from it."""
    work = bench.take(b"{", {})
    assert isinstance(work, Quarantine)
    row = bench.row(work, b"{")
    assert isinstance(row, QuarantineRow)
    assert (row.reason, row.body) == ("unreadable", b"{")


def test_what_is_said_of_a_bad_message_can_be_sent(bench: Bench) -> None:
    """A reason may quote what is no UTF-8 (a lone surrogate in an edge's name): that killed every decoder it met, before
    the writer had heard of it."""
    body = wire_body("n.example.com", 1, [resource("/a"), resource("/b")], [(0, 1, "before")])
    edges = body.index(b'"edges"')
    for lone in (b"\\udcff", b"\xff"):
        work = bench.take(body[:edges] + body[edges:].replace(b"/b", b"/b" + lone), {})
        assert isinstance(work, Quarantine)
        assert "/b" in work.detail
        assert work.detail.isprintable()
