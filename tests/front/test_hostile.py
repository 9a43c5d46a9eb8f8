"""Clients that mean harm: each gets a 4xx that says why (or 503 when its time is up), and nobody else notices."""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ingest.store.connection import Connection
from lab.front import Answer, Front
from tests.front.conftest import Serve
from tests.front.test_clients import eventually
from tests.front.test_commands import CMD, QUERY
from tests.front.watching import (
    MIB,
    descriptors,
    kinds_of_descriptors,
    memory_bytes,
    rows_of_all_tables,
    sessions,
)
from tests.store.test_query import fleet

V4 = "/pdb/query/v4"
PLAIN = (400, 404, 413, 414, 431)
GROWTH_BYTES_MAX = 96 * MIB


@pytest.fixture
def front(serve: Serve, connection: Connection) -> Iterator[Front]:
    """What its clients do must leave its memory, its descriptors and what is stored as they were."""
    fleet(connection)
    found = serve("--query-timeout-s", "3", "--client-timeout-s", "2", "--body-bytes-max", str(4 * MIB))
    assert innocent(found)
    stored, before, open_ = rows_of_all_tables(connection), memory_bytes(found), descriptors(found)
    yield found
    assert innocent(found)
    assert found.process.poll() is None
    assert rows_of_all_tables(connection) == stored
    assert memory_bytes(found) - before < GROWTH_BYTES_MAX
    eventually(
        lambda: descriptors(found) <= open_ + sessions(connection) + 2,
        f"descriptors given back: {open_} before, {sessions(connection)} sessions, {kinds_of_descriptors(found)}",
    )
    assert '"request_failed"' not in found.log.read_text()


def innocent(front: Front) -> bool:
    return len(front.get(f"{V4}/nodes", timeout_s=20).json) == 2


def refused(answer: Answer, about: object = None) -> None:
    """In words, and short ones."""
    assert answer.status in PLAIN, (answer.status, answer.text[:300], str(about)[:300])
    assert 3 < len(answer.text) < 8000, (answer.text[:300], str(about)[:300])
    assert "Traceback" not in answer.text


SQL = (
    "'; DROP TABLE nodes; --",
    '"; DELETE FROM nodes; --',
    "') OR 1=1 --",
    "%s",
    "%(p0)s",
    "{0}",
    "{name}",
    "$1",
    "$$x$$",
    "E'\\047'",
    "\\",
    "/* content */",
    "' UNION SELECT body FROM quarantine --",
    "x' AND pg_sleep(9) --",
    "\0",
    "\ud800",
    'certname" FROM nodes; --',
    "n.certname",
    "c0",
    "found.c0",
    "%%",
    "%",
    "true /* content */",
)


def everywhere(text: str) -> Iterator[Any]:
    """In each place of a query that a string may have."""
    yield ["from", text]
    yield ["from", "nodes", [text, "certname", "x"]]
    yield ["from", "nodes", ["=", text, "x"]]
    for op in ("=", "~", ">", "~>"):
        yield ["from", "nodes", [op, "certname", text]]
        yield ["from", "inventory", [op, "facts.a.b", text]]
        yield ["from", "resources", [op, "parameters.mode", text]]
    yield ["from", "inventory", ["=", f"facts.{text}", 1]]
    yield ["from", "inventory", ["=", f'facts."{text}"', 1]]
    yield ["from", "inventory", ["=", f'facts.match("{text}").x', 1]]
    yield ["from", "inventory", ["extract", [f"facts.{text}"]]]
    yield ["from", "nodes", ["=", ["fact", text], text]]
    yield ["from", "resources", ["=", ["parameter", text], text]]
    yield ["from", "resources", ["~", ["parameter", text], text]]
    yield ["from", "resources", ["=", "tag", text]]
    yield ["from", "nodes", ["=", "node_state", text]]
    yield ["from", "nodes", ["null?", text, True]]
    yield ["from", "nodes", ["in", text, ["array", [text]]]]
    yield ["from", "nodes", ["in", "certname", ["array", [text, text]]]]
    yield ["from", "nodes", ["in", "certname", ["from", text, ["extract", "certname"]]]]
    yield ["from", "nodes", ["in", "certname", ["extract", text, [f"select_{text}", ["=", "title", text]]]]]
    yield ["from", "nodes", ["subquery", text, ["=", "title", text]]]
    yield ["from", "nodes", ["extract", [text]]]
    yield ["from", "nodes", ["extract", [["function", text, "certname"]]]]
    yield ["from", "nodes", ["extract", [["function", "count", text]]]]
    yield ["from", "nodes", ["extract", [["function", "to_string", "report_timestamp", text]]]]
    yield ["from", "nodes", ["extract", [["function", "count"], "certname"], ["group_by", text]]]
    yield ["from", "nodes", ["order_by", [text]]]
    yield ["from", "nodes", ["order_by", [["certname", text]]]]
    yield ["from", "nodes", ["limit", text]]
    yield ["from", "nodes", ["offset", text]]
    yield f"nodes[{text}]{{}}"
    yield f"nodes{{ certname = '{text}' }}"
    yield f'nodes{{ certname = "{text}" }}'
    yield text


def test_sql_in_every_string_is_a_string(front: Front) -> None:
    """Rows that it does not find, or a 400: in queries, paths, parameters."""
    for text in SQL:
        for query in everywhere(text):
            answer = front.post(V4, {"query": query})
            assert answer.status in (200, 400), (query, answer.text)
            assert answer.status == 400 or len(answer.json) <= 4, query
        for name in (
            "order_by",
            "limit",
            "offset",
            "include_total",
            "summarize_by",
            "count_by",
            "counts_filter",
            "explain",
        ):
            for path in ("nodes", "event-counts", text):
                answer = front.get(
                    f"{V4}/{escaped(path)}",
                    {name: text.replace("\ud800", "?"), "query": '["=","certname","x"]'},
                )
                assert answer.status in (200, 400, 404), (path, name, text, answer.text)
        for path in (
            "nodes/{0}",
            "facts/{0}/{0}",
            "resources/{0}/{0}",
            "reports/{0}/events",
            "environments/{0}/facts",
            "factsets/{0}/facts",
            "catalogs/{0}",
            "package-inventory/{0}",
        ):
            answer = front.get(f"{V4}/{path.format(escaped(text))}")
            assert answer.status in (200, 404), (path, text, answer.text)


def escaped(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "replace"))


def nested(opening: str, closing: str, core: str, depth: int = 10_000) -> str:
    return opening * depth + core + closing * depth


DEEP: list[str] = [
    '["from","nodes",' + nested('["not",', "]", '["=","certname","x"]') + "]",
    '["from","nodes",' + nested('["and",', "]", '["=","certname","x"]') + "]",
    '["from","nodes",' + nested('["or",["=","certname","y"],', "]", '["=","certname","x"]') + "]",
    '["from","nodes",["=","certname",' + nested("[", "]", "1") + "]]",
    '["from","facts",["=","value",' + nested('{"a":', "}", "1") + "]]",
    '["from","nodes",'
    + nested('["in","certname",["from","nodes",["extract","certname",', "]]]", '["=","certname","x"]', 3000)
    + "]",
    nested("[", "]", ""),
    nested("[", "", ""),
    nested('{"query":', "}", "1"),
    "nodes{" + nested("(", ")", 'certname="x"') + "}",
    "nodes{" + "!" * 10_000 + 'certname="x"}',
    "nodes{" + nested("!(", ")", 'certname="x"') + "}",
    nested("nodes{nodes{", "}}", ""),
    "nodes{certname in " + nested("[", "]", "") + "}",
    nested("nodes[certname]{certname in ", "}", "x", 2000),
    nested("(", "", ""),
    "inventory{facts" + ".a" * 50_000 + "=1}",
    "inventory{facts" + "[0]" * 10_000 + "=1}",
    '["from","inventory",["=","facts' + '.match(\\"a.*\\")' * 5000 + '",1]]',
    '["from","nodes",["and"' + ',["=","certname","x"]' * 100_000 + "]]",
]


@pytest.mark.parametrize("query", DEEP, ids=lambda query: query[:40])
def test_what_is_nested_without_end_is_refused(deep_front: Front, query: str) -> None:
    """In AST and in PQL, in values and in paths: before it reaches PostgreSQL."""
    refused(deep_front.post(V4, {"query": query}), query)
    if query[0] == "[":
        refused(raw_post(deep_front, query), query)
    assert innocent(deep_front)


def raw_post(front: Front, query: str) -> Answer:
    body = b'{"query":' + query.encode() + b"}"
    return front.get(V4, method="POST", body=body, headers={"Content-Type": "application/json"})


@pytest.fixture(scope="module")
def deep_front(postgres: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """One for all of them."""
    from ingest.store.connection import connect
    from lab.servers import embedded_broker

    postgres.execute("postgres", "CREATE DATABASE deep TEMPLATE template_ingest")
    with connect(postgres.conninfo("deep")) as connection:
        fleet(connection)
    with embedded_broker() as broker:
        found = Front(postgres.conninfo("deep"), broker, log=tmp_path_factory.mktemp("deep") / "log")
        found.wait_ready()
        yield found
        assert memory_bytes(found) < 256 * MIB
        assert '"request_failed"' not in found.log.read_text()
        found.stop()
    postgres.execute("postgres", "DROP DATABASE deep WITH (FORCE)")


EXPLODING = (
    r"(.*)(.*)(.*)(.*)(.*)(.*)\1\2\3\4\5\6x",
    "((a*)*)*b",
    "(a|a)*" * 50 + "b",
    "(a{1,255}){1,255}",
    "((a{255}){255}){255}",
    "(" * 5000 + "a" + ")" * 5000,
    "(?=a*)*" * 100,
    "[" * 1000,
    "a{99999}",
    "(",
    "*",
    "\\",
    "(?<x>a)",
    "[[:nonsense:]]",
    "x" * 100_000,
    "(" + "|".join(f"a{n}.*b" for n in range(3000)) + ")",
)


def test_a_regular_expression_that_explodes_ends_in_time(front: Front) -> None:
    """It is refused, or its time is up; another client's simple query is answered meanwhile."""
    for pattern in EXPLODING:
        query = ["from", "facts", ["and", ["~", "name", pattern], ["~", "value", pattern]]]
        with ThreadPoolExecutor(1) as asking:
            found = asking.submit(front.post, V4, {"query": query})
            assert innocent(front)
            answer = found.result(60)
        assert answer.status in (200, 400, 503), answer.text


ONE = {"field": "certname", "order": "asc"}
MANY: list[tuple[str, dict[str, Any]]] = [
    ("nodes", {"order_by": [ONE] * 100_000}),
    ("nodes", {"order_by": json.dumps([ONE] * 1_000_000)}),
    ("nodes", {"query": ["extract", ["certname"] * 100_000, ["=", "certname", "x"]]}),
    ("nodes", {"query": ["extract", [["function", "count"]] * 3000]}),
    ("nodes", {"query": ["extract", ["certname"], ["group_by", *["certname"] * 100_000]]}),
    ("nodes", {"query": ["in", ["certname"] * 5000, ["from", "nodes", ["extract", ["certname"] * 5000]]]}),
    ("nodes", {"query": "x" * (9 * MIB)}),
    ("nodes", {"limit": 10**30}),
    ("nodes", {"offset": 10**30}),
    ("nodes", {"limit": -1}),
    ("nodes", {"limit": "1" * 5000}),
    ("nodes", {"timeout": "nan"}),
    ("nodes", {"timeout": -1}),
    ("nodes", {f"p{n}": "x" for n in range(1000)}),
    ("facts", {"query": ["=", "value", 10**400]}),
    ("facts", {"query": [">", "value", 1e308]}),
]


def test_too_much_of_a_thing_is_refused(front: Front) -> None:
    """A million columns to order by, a hundred thousand to show, numbers of any length."""
    for path, parameters in MANY:
        answer = front.post(f"{V4}/{path}", parameters)
        if answer.status != 200:
            refused(answer, parameters)
        assert answer.status != 200 or len(answer.body) < 10_000, str(parameters)[:100]
    assert innocent(front)


NO_PQL = (
    "",
    " ",
    "nodes",
    "nodes{",
    "nodes}",
    "{}",
    "[",
    "nodes{certname}",
    "nodes{=}",
    "nodes{certname=}",
    "nodes[,]{}",
    "nodes{certname=nodes{}}",
    "select * from nodes",
    "nodes{certname='x}",
    'nodes{certname="\\u12"}',
    "nodes{limit}",
    "\ufeffnodes{}",
    "nodes{limit -1}",
    "nodes{} nodes{}",
    "nodes{};drop table nodes",
    "nodes{certname ~> 'x'}",
    "nodes{}\0",
    "\x1b[2J",
    "nodes{certname==1}",
    "quarantine{}",
    "pg_authid{}",
    "NODES{}",
    "nodes{order by}",
    "nodes{group by certname",
    "null",
    "true",
    "1",
    '"nodes{}"',
    '{"a":1}',
)


def test_pql_that_is_none_is_told_where_it_ends_to_be(front: Front) -> None:
    for query in NO_PQL:
        refused(front.get(V4, {"query": query}), query)
        if query.startswith(("nodes{certname=", "select")):
            assert "PQL parse error at line 1" in front.get(V4, {"query": query}).text


FORBIDDEN: list[Any] = [
    ["from", "quarantine"],
    ["from", "pg_catalog.pg_authid"],
    ["from", "engines"],
    ["from", "nodes", ["in", "certname", ["from", "quarantine", ["extract", "certname"]]]],
    ["from", "nodes", ["subquery", "quarantine", ["=", "certname", "x"]]],
    [
        "from",
        "nodes",
        ["in", "certname", ["extract", "certname", ["select_quarantine", ["=", "certname", "x"]]]],
    ],
    ["from", "nodes", ["extract", [["function", "pg_sleep", "certname"]]]],
    ["from", "nodes", ["extract", [["function", "pg_read_file", "certname"]]]],
    ["from", "nodes", ["extract", ["body"]]],
    ["delete", "nodes"],
    ["insert", "nodes", ["certname", "x"]],
    ["update", "nodes"],
]


def test_who_asks_for_more_than_the_interface_has_gets_nothing(front: Front) -> None:
    """Neither what is in quarantine, nor the tables below, nor a write, whatever the method."""
    for query in FORBIDDEN:
        refused(front.post(V4, {"query": query}), query)
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "QUERY"):
        for path in (V4, f"{V4}/nodes/n0", CMD, "/pdb/meta/v1/version", "/metrics/v2/list"):
            answer = front.get(path, method=method)
            assert answer.status < 500, (method, path)
    for path in (
        "quarantine",
        "engines",
        "../v4/nodes",
        "nodes/../../x",
        "%2e%2e",
        "nodes/n0/quarantine",
        "//",
        "nodes//facts",
    ):
        assert front.get(f"{V4}/{path}").status in (200, 400, 404), path


def bomb(megabytes: int) -> bytes:
    made = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([*(made.compress(bytes(MIB)) for _ in range(megabytes)), made.flush()])


def test_a_bomb_of_gzip_stays_small(front: Front) -> None:
    """Unpacked no further than a command may have; what is no gzip, or ends early, or stands within gzip, is refused."""
    bodies = [
        bomb(512),
        gzip.compress(bomb(256)),
        bomb(8)[:100],
        b"no gzip",
        b"",
        gzip.compress(b"{}")[:-4],
        gzip.compress(b"["),
    ]
    for body in bodies:
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        answer = front.get(CMD, QUERY, method="POST", body=body, headers=headers)
        if body != bodies[-1] and body != bodies[1]:  # those are what the engine puts into quarantine
            refused(answer, body[:20])
    refused(
        front.get(
            V4,
            method="POST",
            body=bomb(1),
            headers={"Content-Encoding": "gzip", "Content-Type": "application/json"},
        )
    )
    for encoding in ("br", "gzip, gzip", "x" * 1000):
        answer = front.get(
            CMD,
            QUERY,
            method="POST",
            body=b"{}",
            headers={"Content-Encoding": encoding, "Content-Type": "application/json"},
        )
        assert answer.status == 415


FORGED = (
    "n1\nDROP:x",
    "n1\r\nX-Evil: 1",
    "n1\0",
    "../../etc/passwd",
    "",
    " ",
    "\t",
    "x" * 50_000,
    "n1\u2028",
    "'",
    "n1,n2",
    "*",
)


def test_a_forged_certname_forges_nothing(front: Front) -> None:
    """Neither a header of the message nor one of the answer: it is taken as it is, or refused."""
    for certname in FORGED:
        for path in (CMD, f"{V4}/nodes/{escaped(certname)}", f"{V4}/catalogs/{escaped(certname)}"):
            answer = front.get(
                path.rstrip("/"),
                QUERY | {"certname": certname} if path == CMD else None,
                method="POST" if path == CMD else "GET",
                body=b"{}" if path == CMD else None,
                headers={"Content-Type": "application/json"} if path == CMD else {},
            )
            assert answer.status in (200, 400, 404), (path, certname[:50], answer.text[:200])
            assert "x-evil" not in answer.headers


def exchange(front: Front, *pieces: bytes) -> bytes:
    """Raw bytes, and what comes back until the other side closes."""
    with socket.create_connection(("127.0.0.1", front.port), timeout=20) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
            found = b""
            while more := connection.recv(65536):
                found += more
        except ConnectionError:
            return b"closed"
        return found


HEAD = b"POST /pdb/cmd/v1?command=replace_facts&version=5&certname=n1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
RAW: list[Callable[[], list[bytes]]] = [
    lambda: [b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(100_000)) + b"\r\n"],
    lambda: [b"GET / HTTP/1.1\r\nX: " + b"y" * MIB + b"\r\n\r\n"],
    lambda: [b"GET /" + b"y" * MIB + b" HTTP/1.1\r\n\r\n"],
    lambda: [b"GET " + b"\xff" * 100 + b" HTTP/1.1\r\n\r\n"],
    lambda: [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"],
    lambda: [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    lambda: [b"\0" * 10_000],
    lambda: [b"GET\r\n\r\n"],
    lambda: [HEAD + b"Content-Length: 100\r\n\r\n{"],  # and no more: a slow body
    lambda: [HEAD + b"Content-Length: -1\r\n\r\n"],
    lambda: [HEAD + b"Content-Length: 99999999999999999999\r\n\r\n"],
    lambda: [HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"],
    lambda: [HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}"],
    lambda: [HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"],
    lambda: [HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"],
    lambda: [HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n{\r\n" * 10_000],
    lambda: [HEAD + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"],
    lambda: [HEAD],
]


def test_bytes_that_are_no_request_end_their_connection_alone(front: Front) -> None:
    """Floods of headers, bodies that never come, lengths that lie: closed within the time a client has, and answered in the
    words of HTTP where it still can be."""
    for make in RAW:
        found = exchange(front, *make())
        assert found == b"" or found == b"closed" or found.startswith(b"HTTP/1.1 "), found[:100]
        assert not found.startswith((b"HTTP/1.1 2", b"HTTP/1.1 500")), found[:200]
        assert innocent(front)
