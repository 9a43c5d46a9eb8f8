"""Compares what was receipted with what is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ingest.store.connection import Connection
from lab.store_model import expected, stored
from tests.cluster.stream import Message


class Found(NamedTuple):
    lost: list[str]  # nodes whose newest message is not what is stored
    differing: list[str]  # those with the right run and something else in it
    went_back: (
        int  # writes that put an older catalog over a newer one, by the trigger of tests/faults/audit.py
    )
    quarantined: int


def compare(connection: Connection, newest: Mapping[str, tuple[int, Message]]) -> Found:
    """``newest``: of each node the last message that had a receipt, with its number."""
    rows: Any = connection.execute(
        "SELECT certname, transaction_uuid::text FROM catalogs JOIN nodes ON id = node_id"
    ).fetchall()
    numbers = {certname: int(run[-12:]) for certname, run in rows}
    lost, differing = [], []
    for certname, (number, message) in newest.items():
        if numbers.get(certname) != number:
            lost.append(f"{certname}: {numbers.get(certname)}, not {number}")
        elif stored(connection, certname) != expected(message.body):
            differing.append(f"{certname} differs")
    quarantined: Any = connection.execute("SELECT count(*) FROM quarantine").fetchone()
    back: Any = connection.execute(
        "SELECT count(*) FROM faults.effects WHERE after_time < before_time"
    ).fetchone()
    return Found(lost, differing, back[0], quarantined[0])
