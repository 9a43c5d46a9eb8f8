"""A timestamp from far in the future shuts no node out: not one that arrives, and not one that is stored already."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ingest.core.delivery.work import Claim, Outcome
from ingest.engine.kinds import open_lane
from ingest.store.connection import Connection
from ingest.store.housekeeping import forget_nodes, mend_deactivations, purge_nodes
from ingest.store.lane import LaneSettings
from lab.store_model import Pipeline, at, expected, resource, stored, wire_body
from tests.store.test_writing import deactivate

NODE = "n.example.com"
DAY = timedelta(days=1)
FAR = "2099-01-01T00:00:00+00:00"


def dated(body: bytes, when: str) -> bytes:
    """The same message with another time in it."""
    old = body.split(b'"producer_timestamp": "')[1].split(b'"')[0]
    return body.replace(old, when.encode())


def catalog(minute: int, title: str = "/x", **members: object) -> bytes:
    return wire_body(NODE, minute, [resource(title, exported=True, **members)])


def is_active(connection: Connection) -> bool:
    return connection.execute("SELECT count(*) FROM exported_resources").fetchone() == (1,)


def store_far(connection: Connection) -> None:
    """As a version without the tolerance has stored it."""
    connection.execute("UPDATE catalogs SET producer_timestamp = %s", [FAR])


@pytest.mark.parametrize("next_", ["unchanged", "changed", "claim"])
def test_a_catalog_from_the_future_gives_way_to_the_next(connection: Connection, next_: str) -> None:
    """It is stored, as of its arrival; so the node's next catalog is newer."""
    pipeline = Pipeline(connection)
    assert pipeline.take(dated(catalog(1), FAR), received_at=at(5)) == [Outcome.STORED]
    assert stored(connection, NODE)["producer_timestamp"] == at(5).isoformat(timespec="milliseconds")
    body = catalog(6, "/y" if next_ == "changed" else "/x")
    if next_ == "unchanged":
        pipeline.known.clear()
    work = pipeline.decode(body, received_at=at(6))
    assert isinstance(work, Claim) is (next_ == "claim")
    assert pipeline.settle([work], [body]) == [Outcome.STORED if next_ == "changed" else Outcome.UNCHANGED]
    assert stored(connection, NODE) == expected(body)
    assert pipeline.take(catalog(5, "/older"), received_at=at(7)) == [Outcome.STALE]


@pytest.mark.parametrize("next_", ["unchanged", "changed"])
def test_what_is_stored_from_the_future_is_newer_than_nothing(connection: Connection, next_: str) -> None:
    """Neither where it was read before nor in the guard of the statement; and order goes on from there."""
    pipeline = Pipeline(connection)
    pipeline.take(catalog(1), received_at=at(1))
    store_far(connection)
    body = catalog(3, "/y" if next_ == "changed" else "/x")
    outcome = Outcome.STORED if next_ == "changed" else Outcome.UNCHANGED
    assert pipeline.take(body, received_at=at(3)) == [outcome]
    assert stored(connection, NODE) == expected(body)
    assert pipeline.take(catalog(2, "/older"), received_at=at(4)) == [Outcome.STALE]
    assert stored(connection, NODE) == expected(body)


def test_within_the_tolerance_a_time_is_what_the_producer_says(connection: Connection) -> None:
    """A clock that is ahead by less decides as any other; the tolerance is the engine's setting."""
    pipeline = Pipeline(connection)
    ahead = dated(catalog(1), (at(1) + DAY / 2).isoformat())
    assert pipeline.take(ahead, received_at=at(1)) == [Outcome.STORED]
    assert pipeline.take(catalog(2, "/y"), received_at=at(2)) == [Outcome.STALE]
    strict = Pipeline(connection)
    strict.lane = open_lane(connection, LaneSettings(1000, future_tolerance=timedelta(hours=1)))
    assert strict.take(catalog(2, "/y"), received_at=at(2)) == [Outcome.STORED]


def test_a_deactivation_from_the_future_ends_with_the_next_catalog(connection: Connection) -> None:
    """Whether it arrives, and counts as of then, or was stored so by a version before."""
    pipeline = Pipeline(connection)
    pipeline.take(catalog(1), received_at=at(1))
    assert pipeline.take(dated(deactivate(NODE, 1), FAR), received_at=at(3)) == [Outcome.STORED]
    assert not is_active(connection)
    assert pipeline.take(catalog(2), received_at=at(4)) == [
        Outcome.UNCHANGED
    ]  # older than the command's arrival
    assert not is_active(connection)
    pipeline.take(catalog(5), received_at=at(5))
    assert is_active(connection)
    connection.execute("UPDATE nodes SET deactivated = %s", [FAR])
    pipeline.take(catalog(6), received_at=at(6))
    assert is_active(connection)
    assert connection.execute("SELECT deactivated FROM nodes").fetchone() == (None,)


def test_a_deactivation_outdoes_what_is_stored_from_the_future(connection: Connection) -> None:
    """A catalog of 2099 does not keep its node active until then; nor does a command of 2099 keep out the next one."""
    pipeline = Pipeline(connection)
    pipeline.take(catalog(1), received_at=at(1))
    store_far(connection)
    assert pipeline.take(deactivate(NODE, 3), received_at=at(3)) == [Outcome.STORED]
    assert not is_active(connection)
    connection.execute("UPDATE nodes SET deactivated = %s", [FAR])
    assert pipeline.take(deactivate(NODE, 4), received_at=at(4)) == [Outcome.STORED]
    assert connection.execute("SELECT deactivated FROM nodes").fetchone() == (at(4),)


def test_a_node_that_is_deactivated_in_the_future_is_purged_in_time(connection: Connection) -> None:
    """Housekeeping counts from when it met it; what is within the tolerance is left alone."""
    now = datetime.now(UTC)
    connection.execute(
        "INSERT INTO nodes (certname, deactivated) SELECT 'far' || n, %s FROM generate_series(1, 150) AS n",
        [FAR],
    )
    connection.execute("INSERT INTO nodes (certname, deactivated) VALUES ('near', %s)", [now + DAY / 2])
    assert purge_nodes(connection, timedelta(0)) == forget_nodes(connection, timedelta(0)) == 0
    assert mend_deactivations(connection, DAY) == 150
    assert mend_deactivations(connection, DAY) == 0
    assert purge_nodes(connection, timedelta(0)) == 150
    assert connection.execute("SELECT certname, deactivated FROM nodes").fetchall() == [
        ("near", now + DAY / 2)
    ]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (2, 0, 1)])
def test_messages_from_the_future_are_in_the_order_of_their_arrival(
    connection: Connection, order: tuple[int, ...]
) -> None:
    """Two of 2099 and one of now, in any order, in one batch: the last one counts."""
    bodies = [dated(catalog(1, "/a"), FAR), dated(catalog(2, "/b"), "2098-01-01T00:00:00Z"), catalog(3, "/c")]
    pipeline = Pipeline(connection)
    pipeline.take(*(bodies[place] for place in order[:2]), received_at=at(3) - timedelta(seconds=1))
    pipeline.take(bodies[order[2]], received_at=at(4))
    assert stored(connection, NODE)["resources"][0]["title"] == "/" + "abc"[order[2]]
