"""A report's events and log lines as what reports share: each as a content and a time, and the contents once each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from ingest.core.report.model import Event, Log, ReportedResource, Scalar
from ingest.core.report.shared_content import (
    EVENT_SHOWN_BYTES,
    LOG_SHOWN_BYTES,
    About,
    Arrays,
    Fields,
    about,
    clean,
    digest_of,
    event_fields,
    log_fields,
    require_shown,
)
from ingest.core.report.work import Parts
from ingest.core.times import parse_time

MICROSECOND = timedelta(microseconds=1)
_STATUSES = ("success", "failure", "noop", "skipped")


class MadeEvent(NamedTuple):
    digest: bytes
    fields: bytes  # the encoded content, behind the digest
    status: str | None
    is_corrective: bool
    message: str | None
    time: Scalar  # None: when the report starts

    @property
    def shown_bytes(self) -> int:
        return EVENT_SHOWN_BYTES + len(self.fields)


class MadeLog(NamedTuple):
    digest: bytes
    before: bytes  # the id of the event whose message it repeats
    behind: bytes
    message: str | None
    event: bytes | None  # the digest of that event
    time: Scalar

    @property
    def shown_bytes(self) -> int:
        repeated = len(self.message or "") if self.event is not None else 0
        return LOG_SHOWN_BYTES + len(self.before) + len(self.behind) + repeated


class Events(NamedTuple):
    parts: Parts
    contents: dict[bytes, bytes]  # that this lane was not given
    by_message: dict[str, bytes]  # for logs that repeat one
    counts: tuple[int, int, int, int, int]


NO_EVENTS = Events(Parts(b"", ()), {}, {}, (0, 0, 0, 0, 0))


class Logs(NamedTuple):
    parts: Parts
    contents: dict[bytes, tuple[bytes, bytes]]  # that this lane was not given
    repeats: dict[bytes, bytes]  # of those the events


def events_of(resource: ReportedResource, texts: Fields) -> Iterator[MadeEvent]:
    """Of one resource, in their order. Raises Rejected."""
    said = about(resource, texts)
    if resource.skipped:
        yield _event(said, None, texts, resource.timestamp)
    for event in resource.events:
        if resource.skipped and event.status == "skipped":
            continue  # PuppetDB's archives say it twice
        yield _event(said, event, texts, event.timestamp)


def _event(said: About, event: Event | None, texts: Fields, time: Scalar) -> MadeEvent:
    fields = event_fields(said, event, texts)
    status = "skipped" if event is None else event.status
    corrective = event is not None and event.corrective_change is True
    return MadeEvent(
        digest_of(fields), fields, status, corrective, None if event is None else event.message, time
    )


def message_of(log: Log) -> str | None:
    return None if log.message is None else str(log.message)


def log_of(log: Log, by_message: dict[str, bytes], texts: Fields, lists: Arrays) -> MadeLog:
    """One that repeats an event's message refers to that: its content has the event's digest in it, so that it is used only by
    reports that have that event. Raises Rejected."""
    message = message_of(log)
    event = by_message.get(message) if message else None
    before, behind = log_fields(log, None if event is not None else clean(message), texts, lists)
    return MadeLog(digest_of(before, event or b"", behind), before, behind, message, event, log.time)


def all_events(resources: Iterable[ReportedResource], start: datetime, texts: Fields) -> Events:
    """Every event, with all contents. Raises Rejected."""
    made: list[MadeEvent] = []
    offsets: list[int] = []
    shown_bytes = 0
    for resource in resources:
        for event in events_of(resource, texts):
            what = "timestamp of a resource" if event.status == "skipped" else "timestamp of an event"
            offsets.append(_offset(event.time, what, start))
            made.append(event)
            shown_bytes += event.shown_bytes
            require_shown("events", len(made), shown_bytes)
    contents = {event.digest: event.fields for event in made}
    return Events(parts_of(made, offsets), contents, first_by_message(made), counts_of(made))


def all_logs(logs: Iterable[Log], start: datetime, by_message: dict[str, bytes], texts: Fields) -> Logs:
    """Every line, with all contents. Raises Rejected."""
    made: list[MadeLog] = []
    offsets: list[int] = []
    shown_bytes = 0
    lists = Arrays()
    for given in logs:
        log = log_of(given, by_message, texts, lists)
        made.append(log)
        shown_bytes += log.shown_bytes
        require_shown("logs", len(made), shown_bytes)
        offsets.append(_offset(log.time, "time of a log", start))
    contents = {log.digest: (log.before, log.behind) for log in made}
    repeats = {log.digest: log.event for log in made if log.event is not None}
    return Logs(parts_of(made, offsets), contents, repeats)


class Digested(Protocol):
    """An event or a line, made now or remembered."""

    @property
    def digest(self) -> bytes: ...


class Told(Digested, Protocol):
    """An event, made now or remembered."""

    @property
    def status(self) -> str | None: ...
    @property
    def is_corrective(self) -> bool: ...
    @property
    def message(self) -> str | None: ...


def parts_of(made: Sequence[Digested], offsets: Sequence[int]) -> Parts:
    return Parts(b"".join([one.digest for one in made]), tuple(offsets))


def first_by_message(events: Sequence[Told]) -> dict[str, bytes]:
    return {event.message: event.digest for event in reversed(events) if event.message}


def counts_of(events: Sequence[Told]) -> tuple[int, int, int, int, int]:
    statuses = Counter([event.status for event in events])
    success, failure, noop, skipped = (statuses[status] for status in _STATUSES)
    return success, failure, noop, skipped, sum([event.is_corrective for event in events])


def _offset(time: Scalar, what: str, start: datetime) -> int:
    return 0 if time is None else (parse_time(time, what) - start) // MICROSECOND
