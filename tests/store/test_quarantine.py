"""The quarantine holds the newest of what it must, counts the rest, and is never larger than it may be."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from ingest.core.delivery.thinning import row_digest
from ingest.core.delivery.work import Outcome, Quarantine
from ingest.engine.kinds import open_lane
from ingest.store.connection import Connection, connect
from ingest.store.lane import Lane, LaneSettings
from ingest.store.migrate import migrate, migrations, schema_version
from ingest.store.quarantine import QuarantineLimits, QuarantineRow, drop_given_back, entries, entry
from lab.servers import Postgres
from lab.store_model import START

# As the engine of the version before has it (schema 2).
OLD_STATEMENT = """
INSERT INTO quarantine (digest, reason, detail, certname, headers, body, body_note, body_bytes)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (digest) DO UPDATE
SET attempts = quarantine.attempts + 1, last_seen = now(), detail = excluded.detail
"""


def row(
    body: bytes | None,
    *,
    minute: int = 0,
    certname: str | None = None,
    reason: str = "unreadable",
    producer: str | None = None,
    counts: int = 1,
    thinned: int = 0,
) -> QuarantineRow:
    message = Quarantine(
        1, reason, f"minute {minute}", certname, {}, START, 1, 0, 0, 0, producer=producer
    )  # fmt: skip
    digest = hashlib.sha256(body or b"").digest()
    return QuarantineRow(
        deliveries=tuple(range(counts)),
        digest=row_digest(message, digest),
        reason=reason,
        detail=message.detail,
        certname=certname,
        producer=producer,
        headers={"destination": "/queue/catalog"},
        body=body,
        body_note=None,
        body_bytes=len(body or b""),
        body_digest=digest,
        received_at=START + timedelta(minutes=minute),
        thinned=thinned,
    )


def lane(connection: Connection, **limits: int) -> Lane:
    return open_lane(connection, LaneSettings(1000, QuarantineLimits(**limits)))


def there(connection: Connection) -> list[tuple[Any, ...]]:
    rows = connection.execute(
        "SELECT certname, body, attempts, thinned FROM quarantine ORDER BY id"
    ).fetchall()
    return [tuple(row) for row in rows]


def test_a_node_that_is_refused_at_every_run_has_one_row(connection: Connection) -> None:
    """With the newest body, whatever came last, and a count of all; the same message once more thins nothing."""
    writer = lane(connection)
    for minute in (1, 2, 4, 3, 4):
        settled = writer.apply([row(b"run %d" % minute, minute=minute, certname="n")])
        assert [s.outcome for s in settled] == [Outcome.QUARANTINED]
    assert there(connection) == [("n", b"run 4", 5, 3)]
    assert entries(connection)[0].detail == "minute 4"


def test_different_reasons_and_nodes_have_rows_of_their_own(connection: Connection) -> None:
    writer = lane(connection)
    writer.apply(
        [row(b"x", certname="n"), row(b"x", certname="n", reason="invalid"), row(b"x", certname="m")]
    )
    assert len(there(connection)) == 3


def test_of_what_names_no_node_the_newest_stay(connection: Connection) -> None:
    """Of each producer and reason so many, and one of them counts all the others."""
    writer = lane(connection, unnamed_max=3)
    for number in range(10):
        writer.apply([row(b"%d" % number, producer="p")])
        writer.apply([row(b"%d" % number, producer="q")])
    writer.apply([row(b"9", producer="p"), row(b"0", reason="invalid", producer="p")])
    found = there(connection)
    assert [body for _, body, _, _ in found] == [b"7", b"7", b"8", b"8", b"9", b"9", b"0"]
    assert sum(attempts for _, _, attempts, _ in found) == 22
    assert sum(thinned for _, _, _, thinned in found) == 14
    of_producer: Any = connection.execute(
        "SELECT producer, sum(attempts) FROM quarantine GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert [tuple(one) for one in of_producer] == [("p", 12), ("q", 10)]


def test_a_row_counts_all_that_it_stands_for(connection: Connection) -> None:
    """A batch of a hundred bad messages is one row, and every one of them is settled."""
    writer = lane(connection)
    settled = writer.apply([row(b"newest", certname="n", counts=100, thinned=99)])
    assert sorted(s.delivery for s in settled) == list(range(100))
    assert there(connection) == [("n", b"newest", 100, 99)]
    assert writer.quarantine.thinned == 99


def test_a_count_does_not_run_over(connection: Connection) -> None:
    writer = lane(connection)
    writer.apply([row(b"x", certname="n")])
    connection.execute("UPDATE quarantine SET attempts = 2147483647")
    writer.apply([row(b"y", certname="n", minute=1)])
    assert there(connection) == [("n", b"y", 2147483647, 1)]


def test_bodies_are_bounded_in_bytes(connection: Connection) -> None:
    """Three bodies of a megabyte, two may stay: the oldest of who has most goes, its row and its count stay; another
    producer's small ones are not touched."""
    mib = 1024 * 1024
    writer = lane(connection, bytes_max=2 * mib + 1000)
    writer.apply([row(b"small", producer="q", certname="q")])
    for number in range(3):
        writer.apply([row(bytes([number]) * mib, minute=number, producer="p", certname=f"n{number}")])
        assert writer.quarantine.may_be_full
        writer.quarantine.trim(connection)
    kept = {certname: body and len(body) for certname, body, _, _ in there(connection)}
    assert kept == {"q": 5, "n0": None, "n1": mib, "n2": mib}
    dropped = next(found for found in entries(connection) if found.certname == "n0")
    assert (dropped.attempts, dropped.thinned, dropped.body_bytes) == (1, 1, mib)
    assert "quarantine_bytes_max" in (dropped.body_note or "")
    writer.apply(
        [row(bytes([0]) * mib, minute=9, producer="p", certname="n0")]
    )  # it comes again: it is kept again
    assert entry(connection, dropped.id).body == bytes([0]) * mib


def test_rows_are_bounded(connection: Connection) -> None:
    """Ever-new names fill it up to its limit; the few of another producer stay."""
    writer = lane(connection, rows_max=200)
    writer.apply([row(b"%d" % n, producer="good", certname=f"good{n}") for n in range(20)])
    for start in range(0, 400, 50):
        writer.apply([row(b"x", producer="bad", certname=f"bad{n}") for n in range(start, start + 50)])
        if writer.quarantine.may_be_full:
            writer.quarantine.trim(connection)
    found = there(connection)
    assert len(found) == 200
    assert sum(certname.startswith("good") for certname, *_ in found) == 20
    assert "bad399" in {certname for certname, *_ in found}


def test_made_up_names_push_out_no_node_that_is_known(connection: Connection) -> None:
    """Each message under another producer's name, and another node's: rows and bodies of nodes that we have something of stay,
    the oldest and largest too."""
    connection.execute("INSERT INTO nodes (certname) SELECT 'good' || n FROM generate_series(0, 19) n")
    writer = lane(connection, rows_max=100, bytes_max=50_000)
    writer.apply([row(bytes([n]) * 2000, producer="good", certname=f"good{n}") for n in range(20)])
    for start in range(0, 400, 50):
        writer.apply([
            row(b"%d" % n * 100, minute=n, producer=f"p{n}", certname=f"bad{n}" if n % 2 else None)
            for n in range(start, start + 50)
        ])  # fmt: skip
        writer.apply([row(b"x%d" % start * 100, producer="good", certname=f"bad{start}")])
        writer.quarantine.trim(connection)
    found = there(connection)
    assert len(found) == 100
    good = [body for certname, body, *_ in found if (certname or "").startswith("good")]
    assert [body and len(body) for body in good] == [2000] * 20
    assert sum(len(body) for _, body, *_ in found if body) <= 50_000


def test_nothing_is_looked_at_while_little_comes(connection: Connection) -> None:
    """The size of the whole is asked for only when enough was added."""
    writer = lane(connection)
    writer.apply([row(b"x", certname="n")])
    assert not writer.quarantine.may_be_full


def test_two_writers_thin_at_the_same_time(database: str, connection: Connection) -> None:
    """Neither waits for the other's rows for ever, and no count is lost."""
    with connect(database) as other:
        lanes = [lane(connection, unnamed_max=2), lane(other, unnamed_max=2)]
        for number in range(20):
            lanes[number % 2].apply([row(b"%d" % number), row(b"same")])
    found = there(connection)
    assert len(found) <= 3
    assert sum(attempts for _, _, attempts, _ in found) == 40


def test_an_engine_of_the_version_before_goes_on_beside(connection: Connection) -> None:
    """Its statement works on the new table, and its rows are listed and shown."""
    for _ in range(2):
        connection.execute(OLD_STATEMENT.encode(), [b"d", "unreadable", "old", "n", "{}", b"body", None, 4])
    lane(connection).apply([row(b"new", certname="n")])
    assert there(connection) == [("n", b"body", 2, 0), ("n", b"new", 1, 0)]
    assert {found.detail for found in entries(connection)} == {"old", "minute 0"}


def test_the_table_of_the_version_before_is_taken_over(postgres: Postgres) -> None:
    """With its rows: they can be shown and counted on."""
    postgres.execute("postgres", "CREATE DATABASE quarantine_before")
    try:
        with psycopg.connect(postgres.conninfo("quarantine_before"), autocommit=True) as opened:
            for number, _, text in migrations():
                if number < 4:
                    opened.execute(text.encode())
            opened.execute(
                "CREATE TABLE schema_migrations (number integer PRIMARY KEY, name text NOT NULL, "
                "applied_at timestamptz NOT NULL DEFAULT now())"
            )
            opened.execute("INSERT INTO schema_migrations VALUES (3, 'before')")
            opened.execute(OLD_STATEMENT.encode(), [b"d", "unreadable", "old", "n", "{}", b"body", None, 4])
        with connect(postgres.conninfo("quarantine_before")) as opened:
            migrate(opened)
            assert schema_version(opened) >= 4
            (found,) = entries(opened)
            assert (found.attempts, found.thinned, found.body_digest, found.kept_bytes) == (1, 0, None, 4)
    finally:
        postgres.execute("postgres", "DROP DATABASE quarantine_before WITH (FORCE)")


def test_what_was_given_back_goes_unless_something_newer_came(connection: Connection) -> None:
    """Between reading a row and dropping it another message of the node may take its place: it is kept."""
    writer = lane(connection)
    writer.apply([row(b"old", certname="n"), row(b"other", certname="m")])
    given = [entry(connection, found.id) for found in entries(connection)]
    writer.apply([row(b"newer", certname="n", minute=1)])
    assert drop_given_back(connection, given) == 1
    assert there(connection) == [("n", b"newer", 2, 1)]


@pytest.mark.parametrize("certname", ["n", None])
def test_the_same_body_is_not_written_again(connection: Connection, certname: str | None) -> None:
    """A redelivery of sixteen megabytes costs a narrow update."""
    writer = lane(connection)
    body = hashlib.shake_256(b"x").digest(1024 * 1024)  # it cannot be compressed
    writer.apply([row(body, certname=certname)])
    before: Any = connection.execute("SELECT pg_current_wal_lsn()").fetchone()
    writer.apply([row(body, certname=certname, minute=1)])
    after: Any = connection.execute("SELECT pg_current_wal_lsn() - %s::pg_lsn", [before[0]]).fetchone()
    assert after[0] < 200_000
    assert [found[2:] for found in there(connection)] == [(2, 0)]
