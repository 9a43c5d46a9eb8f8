"""From a message's bytes to a report as a writer wants it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from ingest.core.delivery.decoding import DecoderSettings, KnownDigests
from ingest.core.delivery.envelope import Envelope, open_envelope
from ingest.core.delivery.work import UNPLACED, Descriptor
from ingest.core.plain_text import require_plain
from ingest.core.report.identity import report_hash
from ingest.core.report.metrics import MetricShapes
from ingest.core.report.model import Event, Report, ReportedResource, Scalar, read_report
from ingest.core.report.shared_content import (
    EVENT_SHOWN_BYTES,
    LOG_SHOWN_BYTES,
    METRIC_SHOWN_BYTES,
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
from ingest.core.report.work import Parts, ReportHeader, StoreReport
from ingest.core.times import parse_time
from ingest.core.uuids import parse_uuid
from ingest.errors import Rejected

TYPES = ("agent", "plan")
_STATUSES = ("success", "failure", "noop", "skipped")


class ReportDecoder:
    """Remembers the last shape of metrics, nothing else."""

    def __init__(self, settings: DecoderSettings) -> None:
        self._shapes = MetricShapes()

    def decode(self, descriptor: Descriptor, body: memoryview, known: KnownDigests) -> Iterator[StoreReport]:
        """One report. Raises Rejected."""
        envelope = open_envelope(body, descriptor.headers, descriptor.arrived_at)
        if not len(envelope.payload):
            raise Rejected("invalid", "'store report' has no payload")
        report = read_report(envelope.payload, envelope.version)
        header = _header(report, envelope)
        metrics = len(report.metrics or ())
        require_shown("metrics", metrics, METRIC_SHOWN_BYTES * metrics)
        texts = Fields()
        events = _Events(report.resources or [], header.start_time, texts)
        logs = None if report.logs is None else _Logs(report, header.start_time, events.by_message, texts)
        yield StoreReport(
            delivery=descriptor.delivery,
            received_at=descriptor.received_at,
            header=header,
            metrics=None if report.metrics is None else self._shapes.encode(report.metrics),
            events=Parts(b"".join(events.digests), tuple(events.offsets)),
            logs=None if logs is None else Parts(b"".join(logs.digests), tuple(logs.offsets)),
            event_contents=events.contents,
            log_contents={} if logs is None else logs.contents,
            log_events={} if logs is None else logs.repeats,
            counts=events.counts,
        )


class _Events:
    """Each event's digest and time, and the contents once each."""

    def __init__(self, resources: list[ReportedResource], start: datetime, known: Fields) -> None:
        self.digests: list[bytes] = []
        self.offsets: list[int] = []
        self.contents: dict[bytes, bytes] = {}
        self.by_message: dict[str, bytes] = {}  # for logs that repeat one
        self._statuses: Counter[str | None] = Counter()
        self._corrective = self._shown_bytes = 0
        self._known = known
        for resource in resources:
            said = about(resource, known)
            if resource.skipped:
                self._add(said, None, _time(resource.timestamp, "timestamp of a resource", start), start)
            for event in resource.events:
                if resource.skipped and event.status == "skipped":
                    continue  # PuppetDB's archives say it twice
                self._add(said, event, _time(event.timestamp, "timestamp of an event", start), start)

    @property
    def counts(self) -> tuple[int, int, int, int, int]:
        success, failure, noop, skipped = (self._statuses[status] for status in _STATUSES)
        return success, failure, noop, skipped, self._corrective

    def _add(self, resource: About, event: Event | None, at: datetime, start: datetime) -> None:
        fields = event_fields(resource, event, self._known)
        digest = digest_of(fields)
        self.contents.setdefault(digest, fields)
        self.digests.append(digest)
        self.offsets.append(_microseconds(at, start))
        self._shown_bytes += EVENT_SHOWN_BYTES + len(fields)
        require_shown("events", len(self.offsets), self._shown_bytes)
        self._statuses["skipped" if event is None else event.status] += 1
        if event is not None:
            self._corrective += event.corrective_change is True
            if event.message:
                self.by_message.setdefault(event.message, digest)


class _Logs:
    """The same of logs. One that repeats an event's message refers to that: its content has the event's digest in it, so that
    it is used only by reports that have that event."""

    def __init__(self, report: Report, start: datetime, by_message: dict[str, bytes], known: Fields) -> None:
        self.digests: list[bytes] = []
        self.offsets: list[int] = []
        self.contents: dict[bytes, tuple[bytes, bytes]] = {}
        self.repeats: dict[bytes, bytes] = {}
        shown_bytes = 0
        lists = Arrays()
        for log in report.logs or ():
            message = None if log.message is None else str(log.message)
            event = by_message.get(message) if message else None
            before, behind = log_fields(log, None if event is not None else clean(message), known, lists)
            digest = digest_of(before, event or b"", behind)
            if digest not in self.contents:
                self.contents[digest] = (before, behind)
                if event is not None:
                    self.repeats[digest] = event
            self.digests.append(digest)
            shown_bytes += LOG_SHOWN_BYTES + len(before) + len(behind) + (len(message or "") if event else 0)
            require_shown("logs", len(self.digests), shown_bytes)
            self.offsets.append(_microseconds(_time(log.time, "time of a log", start), start))


def _header(report: Report, envelope: Envelope) -> ReportHeader:
    certname = report.certname or envelope.certname
    if not certname:
        raise Rejected("invalid", "the report names no node")
    require_plain("certname", certname)
    said = report.producer_timestamp or envelope.headers.get("producer_timestamp")
    at = parse_time(said, "producer_timestamp") if said not in (None, "") else envelope.arrived_at
    start = _needed_time(report.start_time, "start_time")
    end = _needed_time(report.end_time, "end_time")
    puppet_version, configuration_version = _text(report.puppet_version), _text(report.configuration_version)
    type_ = report.type or "agent"
    if type_ not in TYPES:
        raise Rejected("invalid", f"the report's type {type_[:40]!r} is not one of {', '.join(TYPES)}")
    return ReportHeader(
        certname=certname,
        producer_timestamp=at,
        said_at=None,
        hash=report_hash(
            certname=certname,
            puppet_version=puppet_version,
            report_format=report.report_format,
            configuration_version=configuration_version,
            start_time=start,
            end_time=end,
            # Without any time of its own it is the same report when it comes again.
            producer_timestamp=end if said in (None, "") or at == UNPLACED else at,
            transaction_uuid=report.transaction_uuid,
        ),
        start_time=start,
        end_time=end,
        environment=clean(report.environment),
        producer=clean(report.producer or envelope.headers.get("producer")),
        puppet_version=puppet_version,
        report_format=_small(report.report_format),
        configuration_version=configuration_version,
        transaction_uuid=parse_uuid(report.transaction_uuid, "transaction_uuid"),
        catalog_uuid=parse_uuid(report.catalog_uuid, "catalog_uuid"),
        code_id=clean(report.code_id),
        job_id=clean(report.job_id),
        cached_catalog_status=clean(report.cached_catalog_status),
        status=clean(report.status),
        noop=report.noop,
        noop_pending=report.noop_pending,
        corrective_change=report.corrective_change,
        type=type_,
    )


def _text(value: Scalar) -> str | None:
    return None if value is None else clean(str(value))


def _small(number: int | None) -> int | None:
    if number is not None and not -(2**31) <= number < 2**31:
        raise Rejected("number_out_of_range", f"report_format is {number}")
    return number


def _needed_time(value: Scalar, name: str) -> datetime:
    if value in (None, ""):
        raise Rejected("invalid", f"the report has no {name}")
    return parse_time(value, name)


def _time(value: Scalar, name: str, default: datetime) -> datetime:
    return default if value is None else parse_time(value, name)


def _microseconds(at: datetime, start: datetime) -> int:
    since = at - start
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
