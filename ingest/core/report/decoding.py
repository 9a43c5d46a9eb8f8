"""From a message's bytes to a report as a writer wants it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from ingest.core.delivery.decoding import DecoderSettings, KnownDigests
from ingest.core.delivery.envelope import open_envelope
from ingest.core.delivery.routing import lane_of
from ingest.core.delivery.work import UNPLACED, Descriptor
from ingest.core.plain_text import require_plain
from ingest.core.report.identity import report_hash
from ingest.core.report.known_parts import KnownParts
from ingest.core.report.metrics import MetricShapes
from ingest.core.report.model import ReportHead, Scalar, read_report, read_uncut
from ingest.core.report.parts import Events, Logs, all_events, all_logs
from ingest.core.report.shared_content import METRIC_SHOWN_BYTES, Fields, clean, require_shown
from ingest.core.report.work import ReportHeader, StoreReport
from ingest.core.times import parse_time
from ingest.core.uuids import parse_uuid
from ingest.errors import Rejected

KNOWN_SHARE = 8  # of a decoder's cache: its part for events and lines that were met before
TYPES = ("agent", "plan")


class _Read(NamedTuple):
    head: ReportHead
    header: ReportHeader
    events: Events
    logs: Logs | None


class ReportDecoder:
    """Remembers the last shape of metrics, and the events and lines that reports had lately."""

    def __init__(self, settings: DecoderSettings) -> None:
        self._shapes = MetricShapes()
        self._known = KnownParts(settings.cache_bytes_max // KNOWN_SHARE, settings.seed)
        self._lanes = settings.lanes

    def decode(self, descriptor: Descriptor, body: memoryview, known: KnownDigests) -> Iterator[StoreReport]:
        """One report, with all its contents but the names of its metrics. Raises Rejected."""
        yield self._work(descriptor, _parsed(descriptor, body))

    def at_once(self, descriptor: Descriptor, body: memoryview) -> StoreReport | None:
        """One of which only what was not met before is parsed. Raises Rejected."""
        read = None if descriptor.complete else self._remembered(descriptor, body)
        return None if read is None else self._work(descriptor, read)

    def _work(self, descriptor: Descriptor, read: _Read) -> StoreReport:
        head, header, events, logs = read
        lane, metrics = 1 << lane_of(header.certname, self._lanes), head.metrics
        return StoreReport(
            delivery=descriptor.delivery,
            received_at=descriptor.received_at,
            header=header,
            metrics=None
            if metrics is None
            else self._shapes.encode(metrics, lane, everything=descriptor.complete),
            events=events.parts,
            logs=None if logs is None else logs.parts,
            event_contents=events.contents,
            log_contents={} if logs is None else logs.contents,
            log_events={} if logs is None else logs.repeats,
            counts=events.counts,
            is_complete=descriptor.complete,
        )

    def _remembered(self, descriptor: Descriptor, body: memoryview) -> _Read | None:
        found = read_uncut(body)
        if found is None:
            return None
        report, certname = found
        header = _header(report, descriptor, certname or descriptor.headers.get("certname"))
        lane = 1 << lane_of(header.certname, self._lanes)
        texts = Fields()
        events = self._known.events(bytes(report.resources), header.start_time, lane, texts)
        if events is None:
            return None
        logs = self._known.logs(bytes(report.logs), header.start_time, lane, events.by_message, texts)
        return None if logs is None else _Read(report, header, events, logs)


def _parsed(descriptor: Descriptor, body: memoryview) -> _Read:
    """The report with all its contents."""
    envelope = open_envelope(body, descriptor.headers, descriptor.arrived_at)
    if not len(envelope.payload):
        raise Rejected("invalid", "'store report' has no payload")
    report = read_report(envelope.payload, envelope.version)
    header = _header(report, descriptor, envelope.certname)
    texts = Fields()
    events = all_events(report.resources or [], header.start_time, texts)
    logs = report.logs
    return _Read(
        report,
        header,
        events,
        None if logs is None else all_logs(logs, header.start_time, events.by_message, texts),
    )


def _header(report: ReportHead, descriptor: Descriptor, named: str | None) -> ReportHeader:
    """``named``: the node, where the report itself names none."""
    metrics = len(report.metrics or ())
    require_shown("metrics", metrics, METRIC_SHOWN_BYTES * metrics)
    certname = report.certname or named
    if not certname:
        raise Rejected("invalid", "the report names no node")
    require_plain("certname", certname)
    said = report.producer_timestamp or descriptor.headers.get("producer_timestamp")
    at = parse_time(said, "producer_timestamp") if said not in (None, "") else descriptor.arrived_at
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
        producer=clean(report.producer or descriptor.headers.get("producer")),
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
