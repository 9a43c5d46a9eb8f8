"""Sends an archive's files to the queue, in batches with receipts, and remembers how far it has come."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from ingest.cli.printing import complain
from ingest.config.directories import make_private
from ingest.config.settings import Config
from ingest.core.archive.members import Command
from ingest.core.archive.tar import ArchiveReader, Broken, Member
from ingest.engine.archiving import Inspector, Problem, Tally, headers_of
from ingest.errors import Unavailable
from ingest.transport.publisher import Publisher

BATCH_MESSAGES, BATCH_BYTES = (
    64,
    8 * 1024 * 1024,
)  # as many as a publisher sends without a receipt; what is sent once more
PATIENCE_S = 60.0  # with a broker that is away, or has no room while the engine stores what it has
PAUSE_S = 1.0


class Progressed:
    """How many of an archive's files have the broker's receipt: in a file of the user's, for when it is interrupted.

    Of the same archive (size and time) into the same queue. A lost one costs time and nothing else.
    """

    def __init__(self, config: Config, file: str, source: BinaryIO) -> None:
        self.members = 0
        self._path: Path | None = None
        if not file:
            return
        found = os.fstat(source.fileno())
        about = [
            os.path.realpath(file),
            found.st_size,
            found.st_mtime_ns,
            config.queue_source,
            config.destination,
        ]
        digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]
        self._path = Path(config.data_dir) / "imports" / f"{digest}.json"
        with suppress(OSError, ValueError):
            members = json.loads(self._path.read_text())["members"]
            self.members = members if isinstance(members, int) else 0

    def keep(self, members: int) -> None:
        self.members = members
        if self._path is None:
            return
        partial = self._path.with_suffix(".part")
        try:
            make_private(self._path.parent)
            partial.write_text(json.dumps({"members": members}))
            partial.replace(self._path)
        except OSError as error:
            complain(f"note: if it is interrupted it begins anew: {error.filename}: {error.strerror}")
            self._path = None

    def forget(self) -> None:
        """It is done, or shall begin anew."""
        self.members = 0
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)


class Importing:
    """``feed`` it the archive, or ``take`` files one by one, then ``finish``. Raises Unavailable when the broker stays away."""

    def __init__(self, config: Config, done: Progressed | None, now: Callable[[], datetime]) -> None:
        self.tally = Tally()
        self.is_broken = False
        self._config, self._done, self._now = config, done, now
        self._before = 0 if done is None else done.members
        self._reader = ArchiveReader(config.body_bytes_max)
        self._inspector = Inspector(config)
        self._batch: list[Command] = []
        self._batch_bytes = self._seen = 0
        self._publisher: Publisher | None = None

    @property
    def seen(self) -> int:
        """Files of the archive so far, whether they fitted or not."""
        return self._seen

    def feed(self, piece: bytes) -> None:
        if self.is_broken:
            return
        try:
            for member in self._reader.feed(piece):
                self.take(member)
        except Broken as error:
            self._break(error)

    def finish(self) -> None:
        """It is all there is."""
        if self._done is not None and not self.is_broken:
            try:
                self._reader.finish()
            except Broken as error:
                self._break(error)
        self._send()
        if self._done is not None and not self.is_broken:
            self._done.forget()

    def close(self) -> None:
        if self._publisher is not None:
            self._publisher.close()

    def _break(self, error: Broken) -> None:
        self.is_broken = True
        self.tally.miss(Problem("the archive", "broken", f"{error}: what stood before that is in"))

    def take(self, member: Member) -> None:
        """Also of those that came in before: what does not fit is told again."""
        self._seen += 1
        found = self._inspector.look(member, self._now())
        if isinstance(found, Problem):
            self.tally.miss(found)
        elif found is not None:
            self.tally.fit[found.folder] += 1
            if self._seen > self._before:
                self._batch.append(found)
                self._batch_bytes += len(found.body)
        if len(self._batch) >= BATCH_MESSAGES or self._batch_bytes >= BATCH_BYTES:
            self._send()

    def _send(self) -> None:
        """Until the broker has all of the batch. To send a command twice does no harm."""
        given_up_s = time.monotonic() + PATIENCE_S
        while self._batch:
            try:
                if self._publisher is None:
                    self._publisher = Publisher(self._config)
                self._publisher.publish((one.body, headers_of(one)) for one in self._batch)
                break
            except (Unavailable, OSError) as error:
                if self._publisher is not None:
                    self._publisher.close()
                    self._publisher = None
                if time.monotonic() > given_up_s:
                    raise Unavailable(str(error)) from error
                time.sleep(PAUSE_S)
        self._batch.clear()
        self._batch_bytes = 0
        if self._done is not None and self._seen > self._before:
            self._done.keep(self._seen)
