"""Parameters of statements as PostgreSQL's binary bytes, and rows as one array a column."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

from ingest.core.pgcopy import array_of


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
