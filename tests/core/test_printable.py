"""Foreign text is harmless when it is printed, and JSON stays the same value."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.core.printable import escape_json, escape_lines, escape_unprintable

ANY_TEXT = st.text(st.characters(codec="utf-8"))
HARMFUL = {
    "escape": "\x1b[2J",
    "bell": "\x07",
    "DEL": "\x7f",
    "C1 CSI": "\x9b31m",
    "C1 NEL": "\x85",
    "right-to-left override": "\u202e",
    "isolate": "\u2066",
    "left-to-right mark": "\u200e",
    "zero-width space": "\u200b",
    "byte order mark": "\ufeff",
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
    "tag": "\U000e0041",
    "private use": "\ue000",
    "soft hyphen": "\xad",
}


@pytest.mark.parametrize("text", HARMFUL.values(), ids=HARMFUL)
def test_what_a_terminal_obeys_or_hides_is_escaped(text: str) -> None:
    """In a line, in lines, in JSON; the JSON has the same value."""
    whole = f"a{text}b"
    assert escape_unprintable(whole).isprintable()
    assert escape_lines(f"x\n{whole}").split("\n") == ["x", escape_unprintable(whole)]
    document = json.dumps({whole: [whole]}, ensure_ascii=False).encode()
    escaped = escape_json(document)
    assert escaped.decode().isprintable()
    assert json.loads(escaped) == {whole: [whole]}


def test_what_can_be_read_is_printed_as_it_is() -> None:
    """Letters of any script are no harm."""
    text = "Grüße, Ελλάδα, 日本, 🦊"
    assert escape_unprintable(text) == text
    assert escape_json(json.dumps(text, ensure_ascii=False).encode()) == f'"{text}"'.encode()


def test_lines_of_json_stay_lines() -> None:
    """An indented document keeps its shape."""
    document = json.dumps({"a": ["\x9b", 1]}, indent=2, ensure_ascii=False).encode()
    assert escape_json(document) == b'{\n  "a": [\n    "\\u009b",\n    1\n  ]\n}'


@given(st.recursive(ANY_TEXT, lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner)))
def test_json_is_printable_and_the_same_value(value: object) -> None:
    """For any value, and also where a character takes two escapes."""
    escaped = escape_json(json.dumps(value, ensure_ascii=False).encode())
    assert escaped.decode().isprintable()
    assert json.loads(escaped) == value
