"""What a run must have left in the database: compared with the reference, and watched by a trigger on the way."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from ingest.store.connection import Connection
from lab.store_model import START, expected, stored
from tests.faults.queue_depth import take_all
from tests.faults.traffic import Message

if TYPE_CHECKING:
    from tests.faults.world import World

# Every effect on a node's facts, catalog and newest report, in its order. Written in the writer's own transaction.
_TRIGGER = """
CREATE SCHEMA faults;
CREATE TABLE faults.effects (
    kind text, node_id integer, before_time timestamptz, after_time timestamptz, run text
) TABLESPACE pg_default;
CREATE FUNCTION faults.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO faults.effects VALUES (
        TG_TABLE_NAME, NEW.node_id, CASE WHEN TG_OP = 'UPDATE' THEN OLD.producer_timestamp END, NEW.producer_timestamp,
        to_jsonb(NEW) ->> TG_ARGV[0]
    );
    RETURN NULL;
END $$;
CREATE TRIGGER faults AFTER INSERT OR UPDATE ON catalogs FOR EACH ROW EXECUTE FUNCTION faults.note('transaction_uuid');
CREATE TRIGGER faults AFTER INSERT OR UPDATE ON node_facts FOR EACH ROW EXECUTE FUNCTION faults.note('producer_timestamp');
CREATE TRIGGER faults AFTER INSERT OR UPDATE ON node_latest_reports FOR EACH ROW EXECUTE FUNCTION faults.note('hash');
"""
_STALE = "SELECT count(*) FROM faults.effects WHERE after_time < before_time"
_TWICE = """
SELECT (SELECT count(*) FROM (SELECT 1 FROM faults.effects GROUP BY kind, node_id, run HAVING count(*) > 1) AS twice)
     + (SELECT count(*) FROM (SELECT 1 FROM node_reports GROUP BY hash HAVING count(*) > 1) AS twice)
"""


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
    """Whether the newest facts and catalog of every node, every report and every bad message is where it belongs."""
    with world.direct() as connection:
        rows = connection.execute(
            "SELECT certname, transaction_uuid::text FROM catalogs JOIN nodes ON id = node_id"
        )
        found = dict(rows.fetchall())
        row: Any = connection.execute("SELECT count(*) FROM quarantine").fetchone()
        timed = dict(connection.execute("SELECT certname, producer_timestamp FROM node_factsets").fetchall())
        reports = connection.execute("SELECT certname, transaction_uuid::text FROM reports").fetchall()
    traffic = world.traffic
    return (
        row[0] >= len(traffic.refused())
        and all(
            found.get(certname) == _run_of(message.body) for certname, message in traffic.newest().items()
        )
        and all(
            timed.get(certname) == _time_of(message) for certname, message in traffic.newest("facts").items()
        )
        and traffic.reports().keys() <= set(reports)
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
        lost += _lost_facts(connection, world) + _lost_reports(connection, world)
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


def _lost_facts(connection: Connection, world: World) -> list[str]:
    found: Any = connection.execute("SELECT certname, facts FROM node_factsets").fetchall()
    stored_facts = dict(found)
    return [
        f"{certname}: not the facts that message {message.id} brought"
        for certname, message in world.traffic.newest("facts").items()
        if stored_facts.get(certname) != json.loads(message.body)["payload"]["values"]
    ]


def _lost_reports(connection: Connection, world: World) -> list[str]:
    """With their events and lines in order, and the newest of each node beside it."""
    asked = """
        SELECT r.certname, r.transaction_uuid::text,
               (SELECT array_agg(e.message ORDER BY e.place) FROM resource_events e WHERE e.report = r.hash),
               (SELECT array_agg(l.message ORDER BY l.place) FROM report_logs l WHERE l.report = r.hash)
        FROM reports r"""
    rows: Any = connection.execute(asked.encode()).fetchall()
    found = {(certname, run): (events or [], lines or []) for certname, run, events, lines in rows}
    lost = []
    for key, message in world.traffic.reports().items():
        sent = json.loads(message.body)["payload"]
        events = [each["message"] for one in sent["resources"] for each in one["events"]]
        if found.get(key) != (events, [line["message"] for line in sent["logs"]]):
            lost.append(f"{key[0]}: not the report that message {message.id} brought")
    latest: Any = connection.execute("SELECT certname, producer_timestamp FROM latest_reports").fetchall()
    wanted = {certname: _time_of(message) for certname, message in world.traffic.newest("report").items()}
    return lost + [
        f"{certname}: not its newest report"
        for certname in wanted
        if dict(latest).get(certname) != wanted[certname]
    ]


def _time_of(message: Message) -> datetime:
    return START + timedelta(minutes=message.minute)


def _run_of(body: bytes) -> str:
    uuid: str = json.loads(body)["payload"]["transaction_uuid"]
    return uuid
