"""What a writer can have before the rest of its catalog: it inserts new contents while the decoder is busy with the next."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TypeVar

from ingest.core.catalog.cache import CachedResource
from ingest.core.catalog.resource_cache import content_of
from ingest.core.delivery.work import EarlyContents

R = TypeVar("R")


class EarlyBatches:
    """The new contents of one catalog, ``bytes_min`` of JSON at a time; None: none goes early. ``lane`` is a bit."""

    def __init__(self, bytes_min: int | None, delivery: int, certname: str, lane: int) -> None:
        self._bytes_min = bytes_min
        self._delivery, self._certname, self._lane = delivery, certname, lane
        self._new: list[CachedResource] = []
        self._bytes = 0
        self._has_begun = False

    def of(self, finding: Generator[CachedResource, None, R]) -> Generator[EarlyContents, None, R]:
        """What ``finding`` gives as pieces; returns what it returns."""
        while True:
            try:
                resource = next(finding)
            except StopIteration as found:
                return found.value  # type: ignore[no-any-return]
            if self._bytes_min is None:
                continue
            self._new.append(resource)
            self._bytes += resource.length
            if self._bytes >= self._bytes_min:
                self._has_begun = True
                yield self._take()

    def rest(self) -> Iterator[EarlyContents]:
        """The last of them. Of a catalog with few new ones they go with the rest of it."""
        if self._has_begun and self._new:
            yield self._take()

    def _take(self) -> EarlyContents:
        contents = {resource.digest: content_of(resource) for resource in self._new}
        for resource in self._new:
            resource.sent |= self._lane
        self._new.clear()
        self._bytes = 0
        return EarlyContents(self._delivery, self._certname, contents)
