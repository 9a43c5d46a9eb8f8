"""Parameters of statements as PostgreSQL's binary bytes, and rows as one array a column."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

from ingest.core.pgcopy import ELEMENT_OIDS, INT4_OID, array_of, joined_arrays


class Encoded:
    """A parameter in PostgreSQL's binary format: psycopg would write each of thousands of digests as text, with escapes.
    Its type is what the statement says."""

    def __init__(self, data: bytes) -> None:
        self.data = data


class _EncodedDumper(Dumper):
    format = Format.BINARY
    oid = 0

    def dump(self, obj: Encoded) -> bytes:
        return obj.data


psycopg.adapters.register_dumper(Encoded, _EncodedDumper)


def column_parameters(oids: Sequence[int], rows: Sequence[Sequence[bytes]]) -> list[Encoded]:
    """Rows of encoded fields as one array a column; ``oids``: the columns' types."""
    columns = zip(oids, zip(*rows, strict=True), strict=True)
    return [Encoded(array_of(oid, fields)) for oid, fields in columns]


def named_columns(oids: Sequence[int], rows: Sequence[Sequence[bytes]]) -> dict[str, Encoded]:
    """The same by names, where some columns are arrays: ``c0``, ``c1`` and so on, of an array beside all elements where those of
    each row begin and end, ``c1_first`` and ``c1_last``."""
    found: dict[str, Encoded] = {}
    for number, (oid, fields) in enumerate(zip(oids, zip(*rows, strict=True), strict=True)):
        name = f"c{number}"
        if (element := ELEMENT_OIDS.get(oid)) is None:
            found[name] = Encoded(array_of(oid, fields))
            continue
        elements, firsts, lasts = joined_arrays(element, fields)
        found[name] = Encoded(elements)
        found[f"{name}_first"] = Encoded(array_of(INT4_OID, firsts))
        found[f"{name}_last"] = Encoded(array_of(INT4_OID, lasts))
    return found
