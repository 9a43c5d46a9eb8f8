"""The whole surface under requests that a generator made up: no 500, no answer that is none, nothing left behind.

``make fuzz-front`` does it for ten minutes, with other requests each time.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from random import SystemRandom

import pytest

from ingest.store.connection import Connection
from lab.facts import FactsPipeline, facts_body
from lab.front import Front
from tests.front.conftest import Serve
from tests.front.requests import Sent, requests, shown
from tests.front.test_clients import eventually
from tests.front.watching import MIB, descriptors, memory_bytes, rows_of_all_tables, sessions
from tests.store.test_query import fleet

SECONDS = float(os.environ.get("INGEST_TEST_FRONT_SECONDS", "0"))
MANY = 1500  # without a time: about ten seconds
ALLOWED = {200, 400, 404, 405, 406, 408, 413, 414, 415, 503}
GROWTH_BYTES_MAX = 64 * MIB


def test_made_up_requests_have_answers(serve: Serve, connection: Connection) -> None:
    """Each an allowed status and, where it is 200, JSON; afterwards memory, descriptors and tables are as they were."""
    fleet(connection)
    FactsPipeline(connection).take(
        facts_body("n0", 1, {"a": {"b": [1, "x"]}, "n": 1.5}, [["bash", "5", "dpkg"]])
    )
    front = serve("--query-timeout-s", "2")
    seed = SystemRandom().randrange(2**32) if SECONDS else 1
    made = requests(seed)
    for _ in range(200):  # what caches take
        answer(front, next(made), seed)
    stored, memory, open_ = rows_of_all_tables(connection), memory_bytes(front), descriptors(front)
    idle = open_ - sessions(connection)
    ends, count = time.monotonic() + SECONDS, 0
    found: dict[int, int] = {}
    while count < MANY or time.monotonic() < ends:
        status = answer(front, next(made), seed)
        found[status] = found.get(status, 0) + 1
        count += 1
    growth = memory_bytes(front) - memory
    print(
        f"seed {seed}: {count} requests, by status {dict(sorted(found.items()))}, {growth / MIB:.1f} MiB more"
    )
    assert found[200] > count / 20, "hardly any made sense"
    assert growth < GROWTH_BYTES_MAX
    eventually(lambda: descriptors(front) <= idle + sessions(connection) + 2, "descriptors given back")
    assert rows_of_all_tables(connection) == stored
    assert '"request_failed"' not in front.log.read_text()


def answer(front: Front, sent: Sent, seed: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=30)
    try:
        connection.request(sent.method, sent.path, sent.body, sent.headers)
        got = connection.getresponse()
        body = got.read()
    except http.client.HTTPException as error:
        pytest.fail(f"seed {seed}, no answer ({error!r}): {shown(sent)}")
    finally:
        connection.close()
    assert got.status in ALLOWED, f"seed {seed}, {got.status}: {shown(sent)}\n{body[:500]!r}"
    if got.status == 200 and sent.method != "HEAD" and "json" in (got.getheader("content-type") or ""):
        json.loads(body)
    return got.status
