"""How deeply JSON may be nested is the same on every Python, and told of texts of any size."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.core.nesting import DEPTH_MAX, require_shallow
from ingest.errors import Rejected


def is_shallow(text: bytes) -> bool:
    try:
        require_shallow(text)
    except Rejected:
        return False
    return True


@pytest.mark.parametrize(
    "levels", [1, 2, 5, DEPTH_MAX - 1, DEPTH_MAX, DEPTH_MAX + 1, DEPTH_MAX + 2, 5000, 1_000_000]
)
@pytest.mark.parametrize("kind", ["arrays", "objects", "both", "unclosed"])
def test_the_limit_is_the_limit(levels: int, kind: str) -> None:
    """Whatever is nested, whether it is closed or not."""
    opened, closed = {"arrays": (b"[", b"]"), "objects": (b'{"a":', b"}"), "both": (b'[{"a":', b"}]")}.get(
        kind, (b"[", b"")
    )
    per_step = 2 if kind == "both" else 1
    text = opened * (levels // per_step) + b"1" + closed * (levels // per_step)
    assert is_shallow(text) == (levels // per_step * per_step <= DEPTH_MAX)


@pytest.mark.parametrize(
    "string",
    [
        "[" * 1000, "{" * 1000, '"' * 500 + "[" * 1000, "\\" * 501 + "[" * 1000, '\\"[' * 500, "]" * 1000 + "[" * 1000,
        "\\u005b" * 300, "é[" * 500, '","' * 300 + "[" * 1000,
    ],
)  # fmt: skip
def test_brackets_in_strings_are_text(string: str) -> None:
    """With quotes and backslashes before them, at the beginning and at the end of other strings, as names of members too."""
    assert is_shallow(json.dumps([string, {string: string}, [string]]).encode())
    deep = json.dumps([string, json.loads("[" * DEPTH_MAX + "]" * DEPTH_MAX), string]).encode()
    assert not is_shallow(deep)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[",
        b"]" * 1000,
        b'"' + b"[" * 1000,
        b"\xff" * 1000,
        b'{"a":"' + b"\\" * 999,
        b"}{" * 1000,
        b'""' * 1000,
    ],
)
def test_what_is_no_json_is_only_too_deep_where_it_opens_as_much(text: bytes) -> None:
    """Whatever else is wrong with it is for the parser to say."""
    assert is_shallow(text)


def test_a_wide_text_is_shallow() -> None:
    """Many objects side by side, in a few levels."""
    assert is_shallow(b"[" + b'{"a":[{},[]]},' * 200_000 + b"1]")


TREES = st.recursive(
    st.none() | st.booleans() | st.text('[]{}"\\a', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text('[]{}"\\a', max_size=4), inner, max_size=4)
    ),
    max_leaves=30,
)


def depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(TREES, st.integers(0, 12))
def test_any_document_is_measured_as_it_is(tree: object, missing: int) -> None:
    """Wrapped so that it just reaches the limit, or misses it."""
    levels = DEPTH_MAX - depth(tree)
    text = json.dumps(tree).encode()
    assert is_shallow(b"[" * levels + text + b"]" * levels)
    assert is_shallow(b"[" * (levels - missing) + text + b"]" * (levels - missing))
    assert not is_shallow(b"[" * (levels + 1 + missing) + text + b"]" * (levels + 1 + missing))


def test_the_refusal_says_the_limit() -> None:
    """In quarantine and in the log."""
    with pytest.raises(Rejected, match=f"nested more than {DEPTH_MAX} levels deep") as refused:
        require_shallow(b"[" * 500)
    assert refused.value.reason == "too_deep"
