"""What rich data is printed as is bounded before it is made."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ingest.core.catalog.rich_data import stringify, writer_of
from ingest.errors import Rejected


def nested(levels: int, wrap: Any, leaf: Any = "'") -> Any:
    value = leaf
    for _ in range(levels):
        value = wrap(value)
    return value


WRAPS = {
    "object": lambda value: {"__ptype": "X", "k": value},
    "Deferred": lambda value: {"__ptype": "Deferred", "name": "f", "arguments": [value]},
    "type": lambda value: {"__ptype": "Pcore::OptionalType", "type": value},
    "key": lambda value: {"__ptype": "Hash", "__pvalue": [{"__ptype": "X", "k": value}, 1]},
    "list": lambda value: [{"__ptype": "X", "k": [value, value]}],
}


@pytest.mark.parametrize("levels", [20, 23, 60])
@pytest.mark.parametrize("leaf", ["'", "\\", "'\\'"])
@pytest.mark.parametrize("wrap", ["object", "Deferred", "type"])
def test_what_could_double_on_each_level_stays_as_small_as_it_came(wrap: str, leaf: str, levels: int) -> None:
    """Some hundred bytes never become megabytes."""
    value = nested(levels, WRAPS[wrap], leaf)
    source_bytes = len(json.dumps(value))
    try:
        printed = stringify(value, writer_of(source_bytes))
    except Rejected:
        return
    assert len(json.dumps(printed)) < 8 * source_bytes + 4096


@pytest.mark.parametrize("wrap", WRAPS)
def test_what_is_nested_as_in_real_catalogs_is_printed(wrap: str) -> None:
    """Three levels of anything are nothing special."""
    value = nested(3, WRAPS[wrap], "it's a \\ and a 'quote'")
    assert stringify(value, writer_of(len(json.dumps(value))))


def test_a_long_text_is_no_expansion() -> None:
    """A file's content in a Deferred is printed once more, and that is all."""
    text = "x" * 1_000_000
    value = {"__ptype": "Deferred", "name": "f", "arguments": [text]}
    printed = stringify(value, writer_of(len(json.dumps(value))))
    assert isinstance(printed, str)
    assert text in printed
