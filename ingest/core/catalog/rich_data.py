"""Rich data as PuppetDB's terminus writes it: every value that JSON does not know becomes a string.

Source: Puppet's ``Puppet::Pops::Serialization::ToStringifiedConverter``, and the encoding of its ``ToDataConverter``:
``__ptype`` and ``__pvalue`` since Puppet 6, ``__pcore_type__`` and ``__pcore_value__`` in 5, ``value`` in 4.
"""

from __future__ import annotations

from ingest.core.catalog.model import Json
from ingest.core.catalog.rich_print import PRINTED_FREE, PRINTED_PER_BYTE_MAX, SENSITIVE, Writer
from ingest.core.catalog.rich_value import TYPE_KEY, VALUE_KEY, Rich, pairs_of, rich_value

__all__ = ["SENSITIVE", "TYPE_KEY", "VALUE_KEY", "stringify", "writer_of"]

_RESERVED = (TYPE_KEY, VALUE_KEY)


def writer_of(bytes_: int) -> Writer:
    """What prints the rich data of one resource, which has so many bytes of JSON."""
    return Writer(PRINTED_FREE + PRINTED_PER_BYTE_MAX * bytes_)


def stringify(value: Json, writer: Writer) -> Json:
    """The value with rich data as strings. Plain values are returned as they are, not copied."""
    if isinstance(value, dict):
        if (rich := rich_value(value)) is not None:
            return _rich(value, rich, writer)
        changed = {key: new for key, item in value.items() if (new := stringify(item, writer)) is not item}
        if VALUE_KEY in value or TYPE_KEY in value:
            return {_key(key, writer): changed.get(key, item) for key, item in value.items()}
        return value | changed if changed else value
    if isinstance(value, list):
        items = [stringify(item, writer) for item in value]
        return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
    return value


def _rich(value: Json, rich: Rich, writer: Writer) -> Json:
    if rich.type == "Hash":
        return {_key(key, writer): stringify(item, writer) for key, item in pairs_of(rich)}
    return writer.text(value)


def _key(key: Json, writer: Writer) -> str:
    text = key if isinstance(key, str) else writer.text(key) or ""
    return f"reserved key: {text}" if text in _RESERVED else text
