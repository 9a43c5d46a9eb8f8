"""What stands otherwise in one JSON array than in another: compared as text at the speed of memory, parsed where they differ.

Why this is never wrong. The remembered array is known element by element, with nothing but commas between. What is the
same text, from one comma to the next, is the same elements. What lies between two such runs is believed only when it
parses as elements of an array, from value to value. So every text is read from left to right as one sequence of values,
and a JSON text has only one. Where the comparison looks for the next run is a guess, and a wrong one only costs time.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import NamedTuple

import msgspec

Raw = msgspec.Raw

TOGETHER = 64  # elements are compared at once, and half as many where they differ, down to one
SHIFT_BYTES_MAX = 8192  # how much farther than they stood the next ones are looked for,
SEARCH_BYTES_MAX = 256 * 1024  # but not farther than this
DIFFERENT_SHARE_MAX = 1 / 8  # of the elements in separate places: with more a parse of the whole is cheaper

_elements = msgspec.json.Decoder(list[Raw])


class ArrayText(NamedTuple):
    """A JSON array with nothing but commas between its elements."""

    text: bytes
    starts: list[int]  # where each element begins, and where one more would

    def __len__(self) -> int:
        return len(self.starts) - 1


class Difference(NamedTuple):
    """These elements stand now where those from ``begin`` to before ``end`` stood."""

    begin: int
    end: int
    raws: list[Raw]


class Search(NamedTuple):
    """How the next known element is looked for behind one that differs."""

    ahead: tuple[int, ...]  # so many places on
    begin_bytes: int | None  # by so much of it; None: by all of it, with the comma behind it


# By type and title: what changed in another place is found too.
RESOURCES = Search(tuple(range(1, 9)), 64)
# Many begin alike, and none changes in part; those of one resource stand together.
EDGES = Search((1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 64), None)


def elements(text: bytes | memoryview) -> list[Raw] | None:
    """The elements of an array as they stand there; None when a strict parse does not find one."""
    try:
        return _elements.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None


def array_text(text: bytes, lengths: Iterable[int]) -> ArrayText | None:
    """``lengths`` are those of its ``elements``, all of them; None when there is more than commas between."""
    starts = list(accumulate((length + 1 for length in lengths), initial=1))
    # Spaces only ever add to the text, so equal sums mean that there are none.
    return ArrayText(text, starts) if starts[-1] == len(text) else None


def differences(text: memoryview, known: ArrayText, search: Search) -> list[Difference] | None:
    """What stands otherwise in an array than in the known one; None when only a parse of the whole can tell."""
    if bytes(text[:1]) != b"[" or bytes(text[-1:]) != b"]":
        return None
    found: list[Difference] = []
    at, place = _skip_same(text, 1, known, 0)
    while at < len(text):
        next_, other = _find_next(text, at, known, place, search)
        raws = elements(b"[%b]" % bytes(text[at : next_ - 1])) if next_ > at else []
        if raws is None or (next_ > at and not raws):
            return None  # cut in the wrong place, or rightly
        found.append(Difference(place, other, raws))
        if len(found) > 8 + DIFFERENT_SHARE_MAX * other:
            return None
        at, place = _skip_same(text, next_, known, other)
    return found


def _skip_same(text: memoryview, at: int, known: ArrayText, place: int) -> tuple[int, int]:
    """(where, place) of the first element from there on that differs; the ends of both if none does."""
    starts, last = known.starts, len(known)
    upto = place
    while place < last:
        upto = min(place + TOGETHER, last)
        if not _is_same(text, at, known, place, upto):
            break
        at, place = at + starts[upto] - starts[place], upto
    while upto - place > 1:  # one of these differs
        middle = (place + upto) // 2
        if _is_same(text, at, known, place, middle):
            at, place = at + starts[middle] - starts[place], middle
        else:
            upto = middle
    return at, place


def _is_same(text: memoryview, at: int, known: ArrayText, place: int, upto: int) -> bool:
    """Whether the elements before ``upto`` stand there, and what follows each: a comma, or the end."""
    starts = known.starts
    end = at + starts[upto] - starts[place]
    # The last one, and only that, ends with the array.
    if end > len(text) or (end == len(text)) != (upto == len(known)):
        return False
    return known.text.startswith(text[at:end], starts[place])


def _find_next(text: memoryview, at: int, known: ArrayText, place: int, search: Search) -> tuple[int, int]:
    """(where, place) of the next element that begins like an expected one; the ends of both if none does."""
    starts = known.starts
    farthest = min(place + search.ahead[-1], len(known) - 1)
    reach = min(starts[farthest + 1] - starts[min(place, farthest)] + SHIFT_BYTES_MAX, SEARCH_BYTES_MAX)
    near = b",%b" % bytes(text[at : at + reach])
    for more in search.ahead:
        other = place + more
        if other > farthest:
            break
        begin, end = starts[other], starts[other + 1]
        wanted = known.text[begin : min(begin + search.begin_bytes, end - 1) if search.begin_bytes else end]
        from_ = near.find(b",%b" % wanted)
        if from_ >= 0:
            return at + from_, other
    return len(text), len(known)
