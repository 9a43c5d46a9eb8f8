"""Reads reports back: one of them whole, and which there are."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from ingest.core.catalog.model import Json
from ingest.errors import Refused
from ingest.store.connection import Connection, translate_errors
from ingest.store.queries import query

HASH_LETTERS = 40


def read_reports(
    connection: Connection,
    *,
    certname: str | None = None,
    status: str | None = None,
    since: timedelta | None = None,
) -> Iterator[dict[str, Json]]:
    """What stands above the events of reports, the newest first. Raises Refused for a node that is not known."""
    if certname is not None:
        with translate_errors():
            known: Any = connection.execute(query("has_node"), [certname]).fetchone()
        if not known[0]:
            raise Refused(f"nothing of {certname} is stored")
    with translate_errors(), connection.cursor() as cursor:
        cursor.execute(query("list_reports"), {"certname": certname, "status": status, "since": since})
        names = [column.name for column in cursor.description or ()]
        for row in cursor:
            yield {name: _plain(value) for name, value in zip(names, row, strict=True)}


def read_report(connection: Connection, hash_: str) -> dict[str, Json]:
    """A report whole, as PuppetDB names its parts. Raises Refused where there is none of that hash."""
    with translate_errors(), connection.transaction():
        connection.execute(query("one_snapshot"))  # a day may be dropped between two statements
        found: Any = connection.execute(query("read_report"), {"hash": hash_.lower()}).fetchone()
    if found is None:
        hint = "" if len(hash_) == HASH_LETTERS else f": the hash of one has {HASH_LETTERS} letters"
        raise Refused(f"no report {hash_[:64]} is stored{hint}")
    return dict(found[0])


def _plain(value: Any) -> Json:
    if hasattr(value, "isoformat"):
        return str(value.isoformat(timespec="milliseconds"))
    return value if isinstance(value, str | int | float | bool | None) else str(value)
