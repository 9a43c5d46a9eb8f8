"""A cache never holds more bytes than it may, and what it holds is what was put there last."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ingest.core.bounded_cache import ENTRY_SHARE_MAX, BoundedCache


class Thing:
    def __init__(self, bytes_: int = 10, name: bytes = b"") -> None:
        self.bytes_ = bytes_
        self.name = name


def things(bytes_max: int, **given: Any) -> BoundedCache[bytes, Thing]:
    return BoundedCache(bytes_max, lambda _, thing: thing.bytes_, **given)


@given(st.integers(0, 200), st.lists(st.tuples(st.integers(0, 9), st.integers(1, 60)), max_size=100))
def test_a_cache_is_bounded_and_never_wrong(bytes_max: int, steps: list[tuple[int, int]]) -> None:
    """It has what was put last, or nothing; never more than its bytes; and what it has is the newest of the keys."""
    cache = things(bytes_max)
    last: dict[bytes, Thing] = {}
    for number, bytes_ in steps:
        key = b"%d" % number
        last[key] = Thing(bytes_)
        cache.put(key, last[key])
        assert all(last[key] is held for key, held in cache.entries.items())
        assert sum(held.bytes_ for held in cache.entries.values()) <= bytes_max


def test_all_that_fits_is_kept() -> None:
    """However often it is put, and in whatever order: nothing goes before the bytes are up; then the oldest."""
    cache = things(100)
    for number in (*range(10), *range(10)):
        cache.put(b"%d" % number, Thing())
    assert len(cache.entries) == 10
    cache.put(b"one more", Thing())
    assert b"0" not in cache.entries
    assert b"one more" in cache.entries


def test_what_is_needed_stays_while_there_is_room() -> None:
    """The oldest goes that nobody needs; when all are needed, less must be, or everything that is put goes again."""
    needed = {b"%d" % number for number in range(5)}
    given_up: list[bytes] = []
    cache = things(100, is_needed=lambda thing: thing.name in needed, need_less=lambda: bool(give_up()))

    def give_up() -> list[bytes]:
        freed = sorted(needed)[:1]
        needed.difference_update(freed)
        given_up.extend(freed)
        return freed

    for number in range(11):
        cache.put(b"%d" % number, Thing(name=b"%d" % number))
    assert sorted(cache.entries) == sorted(b"%d" % number for number in (0, 1, 2, 3, 4, 8, 9, 10))
    needed |= {b"%d" % number for number in range(5, 20)}
    for number in range(11, 14):
        cache.put(b"%d" % number, Thing(name=b"%d" % number))
    assert given_up == [b"0", b"1", b"10"]  # the eighth that makes room is three of ten
    assert len(cache.entries) == 8


def test_what_is_too_large_is_not_kept() -> None:
    """Nor what was there under its key, and nothing else goes for it; whoever counts evictions is told."""
    cache = things(800)
    for number in range(5):
        cache.put(b"%d" % number, Thing(100))
    assert cache.evictions == 0
    cache.put(b"1", Thing(800 // ENTRY_SHARE_MAX + 1))
    assert sorted(cache.entries) == [b"0", b"2", b"3", b"4"]
    assert cache.evictions == 1
    assert len(things(800, entry_bytes_max=99).entries) == 0


def test_what_is_put_again_counts_once_and_is_the_newest() -> None:
    """Also when it takes another size now."""
    cache = things(80)
    for _ in range(20):
        cache.put(b"again", Thing(9))
    for number in range(7):
        cache.put(b"%d" % number, Thing())
    cache.put(b"again", Thing(10))
    cache.put(b"7", Thing())
    assert b"0" not in cache.entries
    assert b"again" in cache.entries
    cache.clear()
    assert len(cache) == 0
    cache.put_all({b"a": Thing(), b"b": Thing()})
    assert list(cache.entries) == [b"a", b"b"]
