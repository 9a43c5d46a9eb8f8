"""Names and values of headers, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

# Any text at all, and often the letters that mean something to the protocol.
TEXT = st.text(st.one_of(st.sampled_from("\\:\n\rnc"), st.characters(exclude_categories=["Cs"])), max_size=12)
NAMES = TEXT.filter(bool).filter(lambda name: "\0" not in name and name not in ("content-length", "x"))
VALUES = TEXT.filter(lambda value: "\0" not in value)
