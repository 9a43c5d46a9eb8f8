"""What the two ways of bringing in an archive have in common: each of its files is looked at before it goes to the queue.

It is decoded as the engine will decode it, so that whoever imports is told at once what does not fit, by the name of its file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from ingest.config.settings import Config
from ingest.core.archive.members import Command, Metadata, Unfit, read_member
from ingest.core.archive.tar import Member
from ingest.core.delivery.decoding import DecoderSettings
from ingest.core.delivery.work import Descriptor
from ingest.engine.decoders import Decoders
from ingest.errors import Rejected

CACHE_BYTES_MAX = 16 * 1024 * 1024  # for resources that catalogs share; it only saves time
PROBLEMS_MAX = 100  # that are told one by one; all are counted
_NAME_MAX = 300


class Problem(NamedTuple):
    """A file that did not fit."""

    member: str
    reason: str
    text: str

    def __str__(self) -> str:
        return f"{self.member}: {self.reason}: {self.text}"


class Tally:
    """What came in, by the archive's folders, and what did not."""

    def __init__(self) -> None:
        self.fit: Counter[str] = Counter()
        self.unfit: Counter[str] = Counter()  # by reason
        self.problems: list[Problem] = []

    def miss(self, problem: Problem) -> None:
        self.unfit[problem.reason] += 1
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem)

    @property
    def missed(self) -> int:
        return self.unfit.total()


class Inspector:
    """Of one archive: its metadata are for what comes after them."""

    def __init__(self, config: Config) -> None:
        self._metadata = Metadata()
        self._bytes_max = config.body_bytes_max
        self._decoders = Decoders(
            DecoderSettings(cache_bytes_max=CACHE_BYTES_MAX, thin=config.thin_storeconfigs)
        )

    def look(self, member: Member, now: datetime) -> Command | Problem | None:
        """None: nothing to store, and nothing wrong."""
        name = member.name[:_NAME_MAX]
        if member.body is None:
            return Problem(name, "passed_over", member.problem)
        try:
            command = read_member(member.name, member.body, self._metadata)
            if command is not None:
                self._decode(command, now)
        except (Unfit, Rejected) as error:
            return Problem(name, error.reason, str(error))
        return command

    def _decode(self, command: Command, now: datetime) -> None:
        """Raises Unfit or Rejected."""
        size = len(command.body)
        if size > self._bytes_max:
            raise Unfit("too_large", f"as a message it has {size} bytes, more than body_bytes_max")
        descriptor = Descriptor(1, 1, 0, size, size, now, {}, True)
        for _ in self._decoders.decode(descriptor, memoryview(command.body), {}):
            pass  # the work itself is the engine's


def headers_of(command: Command) -> dict[str, str]:
    """So that a broker's tools show whose it is."""
    found = {"content-type": "application/json", "command": command.name}
    for name, value in (("certname", command.certname), ("producer_timestamp", command.producer_timestamp)):
        # STOMP 1.0 cannot escape a line end: what might be one stays in the body alone.
        if value and value.isascii() and value.isprintable():
            found[name] = value
    return found


def summary(tally: Tally) -> Iterator[str]:
    """Lines for a person."""
    found = [f"{count} {folder.replace('_', ' ')}" for folder, count in sorted(tally.fit.items())]
    yield ", ".join(found) if found else "nothing"
    if tally.missed:
        reasons = ", ".join(f"{count} {reason}" for reason, count in tally.unfit.most_common())
        yield f"{tally.missed} did not fit: {reasons}"
