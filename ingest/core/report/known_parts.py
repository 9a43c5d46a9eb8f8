"""Events and log lines that were met before, by their JSON but for its times: what a release changes it changes on many nodes,
and says the same of it on each. Nothing of them is parsed again, made again or sent again.

A time is cut out only where it stands as nearly everybody writes it, and a number that no sender knows is put in its place.
Whether it is the time of the resource, the event or the line is not guessed from the text: when such a text is met first each
place gets a number of its own, the text is parsed, and every number must come out as one of those times. Text that was cut
alike is the same JSON but for them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, TypeVar

import msgspec
from xxhash import xxh3_128_digest

from ingest.core.bounded_cache import BoundedCache
from ingest.core.report.model import Log, ReportedResource, Scalar
from ingest.core.report.parts import (
    MICROSECOND,
    NO_EVENTS,
    Events,
    Logs,
    counts_of,
    events_of,
    first_by_message,
    log_of,
    parts_of,
)
from ingest.core.report.shared_content import Arrays, Fields, require_shown

# As Puppet and PuppetDB write them, of a year in which nothing overflows.
_TIME = rb"(?:19|20)[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:.]{5,20}(?:Z|[+-][0-9:]{2,6})"
_HOLE_MIN = 1 << 61  # and less than 2**62: an integer of JSON that msgspec reads as one
_ENTRY_BYTES, _EVENT_BYTES = 300, 300

_elements = msgspec.json.Decoder(list[msgspec.Raw])
_resource = msgspec.json.Decoder(ReportedResource)
_log = msgspec.json.Decoder(Log)


T = TypeVar("T")


class _KnownEvent(NamedTuple):
    digest: bytes
    status: str | None
    is_corrective: bool
    message: str | None
    shown_bytes: int
    place: int  # of its time among those of its resource


class _KnownResource(msgspec.Struct):
    events: tuple[_KnownEvent, ...]
    times: int  # how many were cut out
    sent: int = 0  # a bit for each lane that was given the contents

    @property
    def bytes_(self) -> int:
        return _ENTRY_BYTES + sum([_EVENT_BYTES + 4 * len(event.message or "") for event in self.events])


class _KnownLog(msgspec.Struct):
    digest: bytes
    message: str | None
    event: bytes | None  # with which it was made
    shown_bytes: int
    sent: int = 0

    @property
    def bytes_(self) -> int:
        return _ENTRY_BYTES + 4 * len(self.message or "")


class KnownParts:
    """``seed``: that of fingerprints, which who sends reports does not know."""

    def __init__(self, bytes_max: int, seed: int) -> None:
        self._seed = seed
        hole = _HOLE_MIN + seed % _HOLE_MIN
        self._resources = _Cutter("timestamp", hole)
        self._lines = _Cutter("time", hole)
        self._known: BoundedCache[bytes, _KnownResource] = BoundedCache(
            bytes_max // 2, lambda _, known: known.bytes_
        )
        self._known_lines: BoundedCache[bytes, _KnownLog] = BoundedCache(
            bytes_max // 2, lambda _, known: known.bytes_
        )

    def events(self, section: bytes, start: datetime, lane: int, texts: Fields) -> Events | None:
        """Those of that array of resources, with the contents that this lane (a bit) was not given; they count as given from
        now on. None: only a parse of it all can tell. Raises Rejected."""
        if section == b"[]":
            return NO_EVENTS
        cut = self._resources.cut(section)
        if cut is None:
            return None
        contents: dict[bytes, bytes] = {}
        found: list[_KnownEvent] = []
        times: list[str] = []
        at = 0
        for raw in cut.raws:
            key = xxh3_128_digest(raw, self._seed)
            known = self._known.get(key)
            if known is None or not known.sent & lane:
                made = self._make(bytes(raw), texts, contents)
                if made is None:
                    return None
                made.sent = lane if known is None else known.sent | lane
                self._known.put(key, made)
                known = made
            found += known.events
            times += [cut.times[at + event.place] for event in known.events]
            at += known.times
        offsets = _offsets(times, start)
        if offsets is None:
            return None
        require_shown("events", len(found), sum([event.shown_bytes for event in found]))
        return Events(parts_of(found, offsets), contents, first_by_message(found), counts_of(found))

    def logs(
        self, section: bytes, start: datetime, lane: int, by_message: dict[str, bytes], texts: Fields
    ) -> Logs | None:
        """The same of an array of log lines; ``by_message``: the report's events."""
        cut = self._lines.cut(section)
        if cut is None or len(cut.times) != len(cut.raws):
            return None
        contents: dict[bytes, tuple[bytes, bytes]] = {}
        repeats: dict[bytes, bytes] = {}
        found: list[_KnownLog] = []
        lists = Arrays()
        for raw in cut.raws:
            key = xxh3_128_digest(raw, self._seed)
            known = self._known_lines.get(key)
            if known is None or not known.sent & lane or known.event != by_message.get(known.message or ""):
                line = self._lines.read(bytes(raw), _log)
                if line is None or self._lines.place(line.time) != 0:
                    return None
                made = log_of(line, by_message, texts, lists)
                sent = known.sent if known is not None and known.digest == made.digest else 0
                known = _KnownLog(made.digest, made.message, made.event, made.shown_bytes, sent | lane)
                self._known_lines.put(key, known)
                contents[made.digest] = (made.before, made.behind)
                if made.event is not None:
                    repeats[made.digest] = made.event
            found.append(known)
        offsets = _offsets(cut.times, start)
        if offsets is None:
            return None
        require_shown("logs", len(found), sum([line.shown_bytes for line in found]))
        return Logs(parts_of(found, offsets), contents, repeats)

    def _make(self, raw: bytes, texts: Fields, contents: dict[bytes, bytes]) -> _KnownResource | None:
        """What is to be remembered of a resource; its contents are added. None: its times are not where they seem to be."""
        resource = self._resources.read(raw, _resource)
        if resource is None:
            return None
        said = [resource.timestamp, *(event.timestamp for event in resource.events)]
        places = [self._resources.place(time) for time in said if time is not None]
        if sorted(places) != list(range(self._resources.count(raw))):
            return None
        events = []
        for made in events_of(resource, texts):
            if made.time is None:
                return None
            place = self._resources.place(made.time)
            events.append(
                _KnownEvent(
                    made.digest, made.status, made.is_corrective, made.message, made.shown_bytes, place
                )
            )
            contents[made.digest] = made.fields
        return _KnownResource(tuple(events), len(places))


class _Cut(NamedTuple):
    raws: list[msgspec.Raw]  # each element, with a hole for each time
    times: list[str]


class _Cutter:
    """Cuts the times out of an array's elements. ``hole`` is the number that stands for them."""

    def __init__(self, member: str, hole: int) -> None:
        name = member.encode()
        self._time = re.compile(b'"%b": ?"(%b)"' % (name, _TIME))
        self._name, self._number = name, hole
        self._hole = self._text(0)

    def cut(self, section: bytes) -> _Cut | None:
        """None: it is not an array of JSON in UTF-8."""
        pieces = self._time.split(section)
        try:
            raws = _elements.decode(self._hole.join(pieces[::2]))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return _Cut(raws, b" ".join(pieces[1::2]).decode().split())

    def read(self, raw: bytes, decoder: msgspec.json.Decoder[T]) -> T | None:
        """An element, each of its holes with another number. None: it is not what it should be."""
        first, *others = raw.split(self._hole)
        numbered = [first]
        for place, piece in enumerate(others):
            numbered += (self._text(place), piece)
        try:
            return decoder.decode(b"".join(numbered))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def count(self, raw: bytes) -> int:
        """How many holes it has."""
        return raw.count(self._hole)

    def place(self, time: Scalar) -> int:
        """Which hole of its element that is; below zero: none."""
        return -time - self._number if type(time) is int else -1

    def _text(self, place: int) -> bytes:
        return b'"%b":%d' % (self._name, -self._number - place)


def _offsets(times: Sequence[str], start: datetime) -> list[int] | None:
    """Microseconds from the start."""
    try:
        return [(datetime.fromisoformat(time) - start) // MICROSECOND for time in times]
    except ValueError:
        return None
