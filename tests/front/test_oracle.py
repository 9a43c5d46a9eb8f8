"""PuppetDB 7.12.1 is the oracle: after the same commands it and we answer the same queries with the same rows.

Equal as sets, with equal status and content type; what PuppetDB says in an error is told, and not compared. Hashes are our
own, and times of arrival each system's.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from ingest.store.catalog.housekeeping import write_exported_texts
from ingest.store.connection import connect
from lab import puppetdb
from lab.front import Answer, Front, ask
from lab.peer_fleet import Sent, fleet
from lab.servers import Postgres, embedded_broker
from lab.store_model import Pipeline
from tests.store.test_query_random import queries

V4 = "/pdb/query/v4"
LINES = [
    line
    for line in (Path(__file__).parent / "oracle_queries.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
# So many random queries, others with each run; without it the same few every time.
MANY = os.environ.get("INGEST_TEST_ORACLE_EXAMPLES")
OURS_ALONE = {
    "resource", "catalog_timestamp", "facts_timestamp", "timestamp", "deactivated", "receive_time", "report_receive_time",
    "corrective_change",
}  # fmt: skip


@pytest.fixture(scope="module")
def peers(postgres: Postgres) -> Iterator[tuple[int, Front]]:
    """PuppetDB's port, and ours, with the fleet in both."""
    if reason := puppetdb.missing():
        pytest.skip(reason)
    sent = fleet(datetime.now(UTC))
    directory = Path(tempfile.mkdtemp(prefix="ingest-oracle-"))
    directory.chmod(0o755)
    (directory / "postgresql").mkdir()
    theirs = Postgres(directory / "postgresql")
    theirs.start()
    oracle = puppetdb.PuppetDB(directory, theirs)
    postgres.execute("postgres", "CREATE DATABASE beside_oracle TEMPLATE template_ingest")
    conninfo = postgres.conninfo("beside_oracle")
    try:
        with embedded_broker() as broker:
            for one in sent:
                command(oracle.port, one)
            store(conninfo, sent)
            front = Front(conninfo, broker, log=directory / "front.log")
            front.wait_ready()
            yield oracle.port, front
            front.stop()
    finally:
        oracle.stop()
        theirs.stop()
        postgres.execute("postgres", "DROP DATABASE beside_oracle WITH (FORCE)")


def command(port: int, sent: Sent) -> None:
    """Waits until it is stored."""
    parameters = {
        "command": sent.command.replace(" ", "_"), "version": str(sent.version), "certname": sent.certname,
        "producer-timestamp": "", "secondsToWaitForCompletion": "60",
    }  # fmt: skip
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    answer = ask(
        port,
        "/pdb/cmd/v1",
        parameters,
        method="POST",
        body=json.dumps(sent.payload).encode(),
        headers=headers,
    )
    assert answer.status == 200, answer.text
    assert answer.json["processed"] is True


def store(conninfo: str, sent: list[Sent]) -> None:
    with connect(conninfo) as connection:
        pipeline = Pipeline(connection)
        for one in sent:
            body = {
                "command": one.command,
                "version": one.version,
                "certname": one.certname,
                "payload": one.payload,
            }
            pipeline.take(json.dumps(body).encode(), received_at=datetime.now(UTC))
        write_exported_texts(connection)  # as housekeeping does


def asked(line: str) -> tuple[str, dict[str, Any]]:
    if not line.startswith("/"):
        return V4, {"query": line}
    path, _, parameters = line.partition(" ")
    return V4 + ("" if path == "/" else path), json.loads(parameters) if parameters else {}


def comparable(value: Any) -> Any:
    """Without what is each system's own; sets as sorted lists; 7.0 as 7."""
    if isinstance(value, dict):
        is_run = "puppet_version" in value or "latest_report_hash" in value  # their hashes are PuppetDB's
        mine = OURS_ALONE if is_run else OURS_ALONE | {"hash"}
        shown = {name: one for name, one in value.items() if name not in mine}
        if "href" in shown and "data" in shown:
            shown["data"] = shown["data"] or []  # theirs is null where there is nothing
        return {name: comparable(one) for name, one in shown.items()}
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", value):
        return datetime.fromisoformat(value).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, list):
        return sorted(map(comparable, value), key=lambda one: json.dumps(one, sort_keys=True))
    return int(value) if isinstance(value, float) and value.is_integer() else value


def difference(line: str, theirs: Answer, ours: Answer) -> str | None:
    if theirs.status != ours.status:
        return f"{theirs.status} and {ours.status}: {theirs.text[:200]} | {ours.text[:200]}"
    if theirs.headers["content-type"] != ours.headers["content-type"]:
        return f"{theirs.headers['content-type']} and {ours.headers['content-type']}"
    if theirs.headers.get("x-records") != ours.headers.get("x-records"):
        return f"X-Records {theirs.headers.get('x-records')} and {ours.headers.get('x-records')}"
    if ours.status != 200:
        return None
    rows, mine = comparable(theirs.json), comparable(ours.json)
    is_paged = ("limit" in line or "offset" in line) and "order" not in line
    if is_paged:  # which ones is nobody's promise
        return None if len(rows) == len(mine) else f"{len(rows)} and {len(mine)} rows"
    return None if rows == mine else f"{json.dumps(rows)[:2000]}\n{json.dumps(mine)[:2000]}"


def test_the_same_queries_have_the_same_answers(peers: tuple[int, Front]) -> None:
    """Every entity that catalogs and facts make, every operator, every path, the errors; the few exceptions are marked."""
    oracle, front = peers
    wrong = []
    for line in LINES:
        path, parameters = asked(line.lstrip("!~"))
        theirs, ours = ask(oracle, path, parameters), front.get(path, parameters)
        found = difference(line, theirs, ours)
        if line.startswith("!"):  # more than PuppetDB has: never a 500, whatever it makes of it
            if theirs.status == 200 or ours.status >= 500:
                wrong.append(f"{line}\n  marked as ours alone: {theirs.status} and {ours.status}")
        elif line.startswith("~"):
            if found is None or (theirs.status, ours.status) != (200, 200):
                wrong.append(f"{line}\n  marked as different on purpose, and is not")
        elif found is not None:
            wrong.append(f"{line}\n  {found}")
    assert not wrong, f"{len(wrong)} of {len(LINES)}:\n" + "\n".join(wrong)
    assert len(LINES) > 900


@settings(
    max_examples=int(MANY or 300), derandomize=not MANY, database=None, deadline=None,
    suppress_health_check=list(HealthCheck), phases=[Phase.generate],
)  # fmt: skip
@given(asked=queries())
def test_random_queries_have_the_same_answers(peers: tuple[int, Front], asked: list[Any]) -> None:
    """Where both give rows they are the same, and we never fail. What odd values we refuse is not compared here."""
    oracle, front = peers
    line = json.dumps([part for part in asked if not (isinstance(part, list) and part[0] == "limit")])
    # Of inputs no condition is understood; the others differ on purpose: PuppetDB keeps no corrective_change.
    if any(f'"{name}"' in line for name in ("inputs", "latest_report?", "corrective_change")):
        return
    theirs, ours = ask(oracle, V4, {"query": line}), front.get(V4, {"query": line})
    assert ours.status < 500, ours.text
    if (theirs.status, ours.status) == (
        200,
        200,
    ) and theirs.body:  # without any, PostgreSQL refused it after the status line
        found = difference(line, theirs, ours)
        assert found is None, f"{line}\n{found}"
