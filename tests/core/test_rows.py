"""PostgreSQL itself reads the binary rows: it gets the values that went in."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.core import pgcopy
from ingest.core.catalog.wire import canonical_json
from ingest.store.connection import Connection, connect
from ingest.store.parameters import named_columns
from lab.servers import Postgres

FEWER = settings(max_examples=60)  # each asks a server
NOW = datetime(2026, 1, 1, tzinfo=UTC)
# Column, its type, how a value is encoded.
COLUMNS: dict[str, tuple[str, Any]] = {
    "t": ("text", pgcopy.text),
    "b": ("bytea", pgcopy.bytea),
    "f": ("boolean", pgcopy.boolean),
    "i": ("int4", pgcopy.int4),
    "l": ("int8", pgcopy.int8),
    "j": ("jsonb", lambda value: pgcopy.jsonb(canonical_json(value))),
    "ia": ("int4[]", pgcopy.int4_array),
    "sa": ("int2[]", pgcopy.int2_array),
    "w": ("timestamptz", pgcopy.timestamptz),
    "u": ("uuid", pgcopy.uuid_or_null),
}
OIDS = (
    pgcopy.TEXT_OID, pgcopy.BYTEA_OID, pgcopy.BOOL_OID, pgcopy.INT4_OID, pgcopy.INT8_OID, pgcopy.JSONB_OID,
    pgcopy.INT4_ARRAY_OID, pgcopy.INT2_ARRAY_OID, pgcopy.TIMESTAMPTZ_OID, pgcopy.UUID_OID,
)  # fmt: skip
plain_text = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | plain_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_text, inner, max_size=3),
    max_leaves=8,
)
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=zones)
VALUES = st.fixed_dictionaries(
    {
        "t": st.none() | plain_text,
        "b": st.none() | st.binary(max_size=20),
        "f": st.booleans(),
        "i": st.none() | st.integers(-(2**31), 2**31 - 1),
        "l": st.none() | st.integers(-(2**63), 2**63 - 1),
        "j": json_values,
        "ia": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5),
        "sa": st.lists(st.integers(0, 2**15 - 1), max_size=5),
        "w": moments,
        "u": st.none() | st.uuids().map(str),
    }
)
PLAIN: dict[str, Any] = {
    "t": None, "b": None, "f": True, "i": None, "l": None, "j": 1, "ia": [], "sa": [], "w": NOW, "u": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def table(postgres: Postgres) -> Iterator[Connection]:
    connection = connect(postgres.conninfo("postgres"))
    columns = ", ".join(f"{name} {kind}" for name, (kind, _) in COLUMNS.items())
    connection.execute(f"CREATE TEMP TABLE everything ({columns})")
    yield connection
    connection.close()


def copy_in(connection: Connection, values: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What PostgreSQL made of the rows, in their order."""
    connection.execute("TRUNCATE everything")
    with connection.cursor() as cursor:
        with cursor.copy("COPY everything FROM STDIN WITH (FORMAT BINARY)") as copy:
            copy.write(pgcopy.HEADER)
            for value in values:
                copy.write(pgcopy.row(*(encode(value[name]) for name, (_, encode) in COLUMNS.items())))
            copy.write(pgcopy.TRAILER)
        return list(cursor.execute("SELECT * FROM everything"))


@FEWER
@given(st.lists(VALUES, max_size=4))
@example([])
def test_postgresql_reads_what_was_written(table: Connection, values: list[dict[str, Any]]) -> None:
    """Every type, NULLs, empty texts and arrays, the ends of the ranges, microseconds in any zone."""
    for found, value in zip(copy_in(table, values), values, strict=True):
        expected = value | {"u": value["u"] and uuid.UUID(value["u"])}
        assert dict(zip(COLUMNS, found, strict=True)) == expected


@FEWER
@given(st.lists(VALUES, min_size=1, max_size=4))
def test_rows_as_columns_are_the_same_rows(table: Connection, values: list[dict[str, Any]]) -> None:
    """Their fields, taken apart again, go as one array a column where the rows would go by COPY."""
    rows = [pgcopy.row(*(encode(value[name]) for name, (_, encode) in COLUMNS.items())) for value in values]
    shown, sources, names = [], [], []
    for number, (name, (kind, _)) in enumerate(COLUMNS.items()):
        if kind.endswith("[]"):
            shown.append(f"(%(c{number})s::{kind})[{name}_first:{name}_last]")
            sources += [f"%(c{number}_{end})s::int4[]" for end in ("first", "last")]
            names += [f"{name}_first", f"{name}_last"]
        else:
            shown.append(name)
            sources.append(f"%(c{number})s::{kind}[]")
            names.append(name)
    copied = copy_in(table, values)
    selected = table.execute(
        f"SELECT {', '.join(shown)} FROM unnest({', '.join(sources)}) WITH ORDINALITY"  # type: ignore[arg-type]
        f" AS new ({', '.join(names)}, place) ORDER BY place",
        named_columns(OIDS, [pgcopy.fields_of(row) for row in rows]),
    ).fetchall()
    assert selected == copied


@pytest.mark.parametrize(
    "lists",
    [[None], [[]], [None, [], ["a"]], [["a", "b"], None, [], ["", "ü" * 200]], [["c"] * 300, ["d"]]],
    ids=str,
)
def test_arrays_that_are_null_empty_and_others_stay_apart(
    table: Connection, lists: list[list[str] | None]
) -> None:
    """Of text, whose elements differ in length."""
    fields = [
        pgcopy.NULL
        if one is None
        else pgcopy.bytea(pgcopy.array_of(pgcopy.TEXT_OID, [pgcopy.text(text) for text in one]))
        for one in lists
    ]
    found = table.execute(
        "SELECT (%(c0)s::text[])[f:l] FROM unnest(%(c0_first)s::int4[], %(c0_last)s::int4[]) AS s (f, l)",
        named_columns([pgcopy.TEXT_ARRAY_OID], [(field,) for field in fields]),
    ).fetchall()
    assert [one for (one,) in found] == lists


def test_arrays_of_any_size_are_arrays_of_one_dimension(table: Connection) -> None:
    """Empty ones are empty, not NULL; others begin at 1, as SQL's do."""
    for size in (0, 1, 2, 127, 128, 100_000):
        numbers = [(n * 7919) % 2**15 for n in range(size)]
        copy_in(table, [PLAIN | {"ia": numbers, "sa": numbers}])
        row = table.execute(
            "SELECT ia, sa, array_ndims(ia), array_lower(ia, 1), array_lower(sa, 1), cardinality(sa),"
            " ia = sa::int4[], ia = '{}'::int4[] FROM everything"
        ).fetchone()
        one = 1 if size else None
        assert row == (numbers, numbers, one, one, one, size, True, size == 0)


@FEWER
@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=50))
@example([])
def test_an_array_comes_back_as_it_went(table: Connection, numbers: list[int]) -> None:
    """Both as this module writes it and as PostgreSQL sends it."""
    assert pgcopy.read_int4_array(pgcopy.int4_array(numbers)[4:]).tolist() == numbers
    with table.cursor(binary=True) as cursor:
        cursor.execute("SELECT %s::int4[]", [numbers])
        assert cursor.pgresult is not None
        sent = cursor.pgresult.get_value(0, 0)
    assert sent is not None
    assert pgcopy.read_int4_array(sent).tolist() == numbers
    assert pgcopy.int4_array(numbers)[4:] == sent


@given(moments)
def test_microseconds_are_exact(moment: datetime) -> None:
    """No rounding by way of floats, before 2000 neither."""
    assert datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=pgcopy.microseconds(moment)) == moment


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
def test_a_text_that_is_none_never_gets_through(table: Connection, value: str) -> None:
    """Refused here or by PostgreSQL, never cut or changed: who encodes has to look before."""
    copy_in(table, [])
    with pytest.raises(Exception, match=r"surrogates not allowed|invalid byte sequence"):
        copy_in(table, [PLAIN | {"t": value}])
    assert table.execute("SELECT count(*) FROM everything").fetchone() == (0,)


BEYOND = [
    (pgcopy.int4, 2**31), (pgcopy.int8, 2**63), (pgcopy.int4_array, [2**31]), (pgcopy.int2_array, [2**15]),
    (pgcopy.int2_array, [-(2**15) - 1]),
]  # fmt: skip


@pytest.mark.parametrize(("encode", "value"), BEYOND)
def test_a_number_beyond_its_type_is_an_error(encode: Any, value: Any) -> None:
    """Never a smaller number."""
    with pytest.raises(
        Exception, match=r"format requires|argument out of range|too large|greater than|less than"
    ):
        encode(value)


@given(plain_text)
def test_a_names_digest_fits_its_column(name: str) -> None:
    """20 bytes, others for other names."""
    assert len(pgcopy.name_digest(name)) == 20
    assert pgcopy.name_digest(name) != pgcopy.name_digest(name + "x")


def test_jsonb_is_read_with_its_version(table: Connection) -> None:
    """What has been encoded once is the same document for SQL."""
    document = {"a": [1, {"b": None}], "é": "\U0001f600"}
    copy_in(table, [PLAIN | {"j": document}])
    found = table.execute("SELECT j = %s::jsonb FROM everything", [json.dumps(document)]).fetchone()
    assert found == (True,)
