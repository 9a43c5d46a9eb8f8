"""The one cache: a dict bounded in bytes, because what is remembered of messages is as large as who sends them likes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

ENTRY_SHARE_MAX = 8  # a value that takes more than this part of the cache would push out all others


class BoundedCache(Generic[K, V]):
    """The oldest entries go that nobody needs, and a large one is not kept at all. What is asked for all the time may go too,
    and comes back at the price of one miss. Each entry's bytes are what their maker says."""

    def __init__(
        self,
        bytes_max: int,
        size_of: Callable[[K, V], int],
        *,
        entry_bytes_max: int | None = None,
        is_needed: Callable[[V], bool] = lambda value: False,
        need_less: Callable[[], bool] = lambda: False,
    ) -> None:
        """``need_less`` is called while what is needed is too much; it says whether less is needed now."""
        self.entries: dict[K, V] = {}
        self.get = self.entries.get  # thousands are asked for with each catalog
        self.evictions = 0  # how often something that was put here went
        self._bytes = 0
        self._bytes_max = bytes_max
        self._entry_bytes_max = bytes_max // ENTRY_SHARE_MAX if entry_bytes_max is None else entry_bytes_max
        self._size_of = size_of
        self._is_needed = is_needed
        self._need_less = need_less

    def __len__(self) -> int:
        return len(self.entries)

    def put(self, key: K, value: V) -> None:
        entries = self.entries
        if key in entries:
            self._bytes -= self._size_of(key, entries.pop(key))  # and it is the newest now
        bytes_ = self._size_of(key, value)
        if bytes_ > self._entry_bytes_max:
            self.evictions += 1
            return
        entries[key] = value
        self._bytes += bytes_
        if self._bytes > self._bytes_max:
            self._evict()

    def put_all(self, values: Mapping[K, V]) -> None:
        for key, value in values.items():
            self.put(key, value)

    def clear(self) -> None:
        self.entries.clear()
        self._bytes = 0

    def _evict(self) -> None:
        # An eighth at a time: to find the oldest entry means to pass by the places of all that went before.
        self.evictions += 1
        enough = self._bytes_max * 7 // 8
        self._shrink(enough)
        while self._bytes > enough and self._need_less():
            self._shrink(enough)

    def _shrink(self, enough: int) -> None:
        going = []
        for key, value in self.entries.items():
            if self._bytes <= enough:
                break
            if not self._is_needed(value):
                going.append(key)
                self._bytes -= self._size_of(key, value)
        for key in going:
            del self.entries[key]
