"""Rich data as PuppetDB's terminus writes it: every value that JSON does not know becomes a string.

Source: Puppet's ``Puppet::Pops::Serialization::ToStringifiedConverter``, and the encoding of its ``ToDataConverter``:
``__ptype`` and ``__pvalue`` since Puppet 6, ``__pcore_type__`` and ``__pcore_value__`` in 5, ``value`` in 4.
"""

from __future__ import annotations

from ingest.core.catalog.model import Json
from ingest.core.catalog.rich_print import PRINTED_FREE, PRINTED_PER_BYTE_MAX, SENSITIVE, Writer
from ingest.core.catalog.rich_value import PCORE_TYPE_KEY, TYPE_KEY, VALUE_KEY, pairs_of, rich_value
from ingest.core.deferred import printed_secret

__all__ = ["SENSITIVE", "TYPE_KEY", "VALUE_KEY", "stringify", "writer_of"]

_NESTED = (dict, list)
_RESERVED = (TYPE_KEY, VALUE_KEY)


def writer_of(bytes_: int) -> Writer:
    """What prints the rich data of one resource, which has so many bytes of JSON."""
    return Writer(PRINTED_FREE + PRINTED_PER_BYTE_MAX * bytes_)


def stringify(value: Json, writer: Writer) -> Json:
    """The value with rich data as strings: in its place where it is a hash or a list, which is the caller's own."""
    # Most items of most values are plain: they are told here, without a call for each.
    if isinstance(value, dict):
        if TYPE_KEY in value or VALUE_KEY in value or PCORE_TYPE_KEY in value:
            return _marked(value, writer)
        for key, item in value.items():
            if isinstance(item, _NESTED):
                value[key] = stringify(item, writer)
    elif isinstance(value, list):
        for at, item in enumerate(value):
            if isinstance(item, _NESTED):
                value[at] = stringify(item, writer)
    return value


def _marked(value: dict[str, Json], writer: Writer) -> Json:
    """A hash with one of the keys that say what it stands for."""
    rich = rich_value(value)
    if rich is not None and rich.type != "Hash":
        return _printed(value, writer)
    pairs = value.items() if rich is None else pairs_of(rich)
    return {_key(key, writer): stringify(item, writer) for key, item in pairs}


def _key(key: Json, writer: Writer) -> str:
    text = key if isinstance(key, str) else _printed(key, writer) or ""
    return f"reserved key: {text}" if text in _RESERVED else text


def _printed(value: Json, writer: Writer) -> str | None:
    """Without the arguments that are secret, as they are taken out of what the terminus prints: both are one state."""
    text = writer.text(value)
    begin = printed_secret(text) if text is not None else None
    return text if text is None or begin is None else text[:begin] + SENSITIVE
