"""What a run must have left in the database: compared with the reference, and watched by a trigger on the way."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from ingest.store.connection import Connection
from lab.store_model import expected, stored
from tests.faults.queue_depth import take_all

if TYPE_CHECKING:
    from tests.faults.world import World

# Every effect on a node's catalog, in its order. Written in the writer's own transaction.
_TRIGGER = """
CREATE SCHEMA faults;
CREATE TABLE faults.effects (
    node_id integer, before_time timestamptz, after_time timestamptz, before_run uuid, after_run uuid
) TABLESPACE pg_default;
CREATE FUNCTION faults.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO faults.effects VALUES (
        NEW.node_id, CASE WHEN TG_OP = 'UPDATE' THEN OLD.producer_timestamp END, NEW.producer_timestamp,
        CASE WHEN TG_OP = 'UPDATE' THEN OLD.transaction_uuid END, NEW.transaction_uuid
    );
    RETURN NULL;
END $$;
CREATE TRIGGER faults AFTER INSERT OR UPDATE ON catalogs FOR EACH ROW EXECUTE FUNCTION faults.note();
"""
_STALE = "SELECT count(*) FROM faults.effects WHERE after_time < before_time"
_TWICE = "SELECT count(*) FROM (SELECT 1 FROM faults.effects GROUP BY node_id, after_run HAVING count(*) > 1) AS twice"


class Verdict(NamedTuple):
    """The figures of a run. Everything but the first three must be zero or empty."""

    sent: int
    receipts: int
    settled: int
    lost: list[str]
    stale_overwrites: int
    duplicates_in_effect: int
    still_queued: int
    leftovers: list[str]

    @property
    def is_clean(self) -> bool:
        return not (
            self.lost
            or self.stale_overwrites
            or self.duplicates_in_effect
            or self.still_queued
            or self.leftovers
        )


def install(connection: Connection) -> None:
    connection.execute(_TRIGGER.encode())


def settled_all(world: World) -> bool:
    """Whether the newest catalog of every node and every bad message is where it belongs."""
    with world.direct() as connection:
        rows = connection.execute(
            "SELECT certname, transaction_uuid::text FROM catalogs JOIN nodes ON id = node_id"
        )
        found = dict(rows.fetchall())
        row: Any = connection.execute("SELECT count(*) FROM quarantine").fetchone()
    newest = world.traffic.newest()
    return row[0] >= len(world.traffic.refused()) and all(
        found.get(certname) == _run_of(message.body) for certname, message in newest.items()
    )


def examine(world: World) -> Verdict:
    """After the engine has ended."""
    receipts = world.producer.receipts
    queued = take_all("127.0.0.1", world.broker_port, world.login)
    connection = world.open_store()
    try:
        lost = [f"no receipt: {id_}" for id_ in world.traffic.messages.keys() - receipts]
        for certname, message in world.traffic.newest().items():
            if stored(connection, certname) != expected(message.body):
                lost.append(f"{certname}: not what message {message.id} brought")
        rows: list[Any] = connection.execute(
            "SELECT body_digest, reason, concat_ws(': ', reason, certname, detail) FROM quarantine"
        ).fetchall()
        wanted = {
            (reason, hashlib.sha256(body).digest()): reason
            for body, reason in world.traffic.refused().items()
        }
        present = {(reason, bytes(digest)): what for digest, reason, what in rows}
        lost += [f"not in quarantine: {wanted[key]}" for key in wanted.keys() - present.keys()]
        odd = [f"in quarantine without a cause: {present[key]}" for key in present.keys() - wanted.keys()]
        stale: Any = connection.execute(_STALE).fetchone()
        twice: Any = connection.execute(_TWICE).fetchone()
    finally:
        connection.close()
    return Verdict(
        sent=world.producer.sent,
        receipts=len(receipts),
        settled=len(receipts) - len(queued),
        lost=lost + odd,
        stale_overwrites=stale[0],
        duplicates_in_effect=twice[0] + len(odd),
        still_queued=len(queued),
        leftovers=world.traces.left(),
    )


def _run_of(body: bytes) -> str:
    uuid: str = json.loads(body)["payload"]["transaction_uuid"]
    return uuid
