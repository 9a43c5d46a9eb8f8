"""An archive of all that is stored, piece by piece: it is never in memory, nor is more than one report or catalog of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from ingest.core.archive.anonymize import Anonymizer
from ingest.core.archive.members import member, metadata_member
from ingest.core.archive.tar import ArchiveWriter
from ingest.store.archive.reading import walk
from ingest.store.connection import Connection


class Export:
    """``pieces`` once; ``tally`` says meanwhile how many of each folder are in it. ``key`` makes what takes the place of names
    and values: 32 random bytes that nobody keeps."""

    def __init__(self, profile: str, key: bytes, now_s: float) -> None:
        self.tally: Counter[str] = Counter()
        self._anonymizer = None if profile == "none" else Anonymizer(profile, key)
        self._now_s = now_s

    def pieces(self, connection: Connection) -> Iterator[bytes]:
        """Raises Unavailable."""
        writer = ArchiveWriter(int(self._now_s))
        made_at = datetime.fromtimestamp(self._now_s, UTC).isoformat(timespec="milliseconds")
        yield writer.add(*metadata_member(made_at.replace("+00:00", "Z")))
        for folder, payload in walk(connection):
            if self._anonymizer is not None:
                payload = self._anonymizer.replace(folder, payload)
            piece = writer.add(*member(folder, payload))
            self.tally[folder] += 1
            if piece:
                yield piece
        yield writer.finish()
