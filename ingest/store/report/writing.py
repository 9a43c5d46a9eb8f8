"""Reports, from a writer's side: each is added once, to its day, and the newest of a node is put beside it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from ingest.core import pgcopy
from ingest.core.bounded_cache import BoundedCache
from ingest.core.delivery.work import Outcome, Settled
from ingest.core.report.work import StoreReport
from ingest.errors import Rejected
from ingest.store.engines import Placing
from ingest.store.lane import LaneSettings
from ingest.store.node.nodes import read_nodes
from ingest.store.parameters import Encoded, column_parameters
from ingest.store.queries import query
from ingest.store.report.shared_content import Ids, ReportContents
from ingest.store.session import Session

ALWAYS = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
# Beyond these a report lies on the day on which it came, whatever future_tolerance_s and report_ttl_s say: a partition for
# each wrong clock would stay for years. Nobody has reports of eleven years.
AHEAD_MAX, AGE_MAX = timedelta(days=2), timedelta(days=4000)
DAYS_BYTES_MAX = 100_000  # a thousand days
_DAY_BYTES = 100
_LATEST_OIDS = (
    pgcopy.INT4_OID, pgcopy.TEXT_OID, *[pgcopy.INT4_OID] * 5, *[pgcopy.BOOL_OID] * 3, *[pgcopy.TIMESTAMPTZ_OID] * 4,
    pgcopy.BYTEA_OID, *[pgcopy.TEXT_OID] * 3,
)  # fmt: skip


class ReportWriter:
    def __init__(self, settings: LaneSettings) -> None:
        self._future_tolerance = settings.future_tolerance
        self._ttl = settings.report_ttl
        self._events_ttl = settings.resource_events_ttl
        self._placing = Placing(settings.asking)
        self._contents = ReportContents(settings.cache_entries_max)
        self._days: BoundedCache[date, bool] = BoundedCache(
            DAYS_BYTES_MAX, lambda day, _: _DAY_BYTES, entry_bytes_max=_DAY_BYTES
        )
        self._fresh_days: set[date] = set()

    def write(self, session: Session, works: Sequence[StoreReport]) -> list[Settled]:
        works = [self._kept(work) for work in self._placing.place(session, works)]
        outcomes = {work.delivery: Outcome.STALE for work in works if self._is_too_old(work)}
        wanted: dict[bytes, StoreReport] = {}
        for work in works:
            if work.delivery not in outcomes:
                first = wanted.setdefault(work.header.hash, work)
                outcomes[work.delivery] = Outcome.STORED if first is work else Outcome.UNCHANGED
        for hash_ in self._stored(session, list(wanted.values())):
            outcomes[wanted.pop(hash_).delivery] = Outcome.UNCHANGED
        if wanted:
            outcomes |= dict.fromkeys(self._add(session, list(wanted.values())), Outcome.REDO)
        return [Settled(work.delivery, outcomes[work.delivery]) for work in works]

    def committed(self) -> None:
        self._contents.committed()
        self._days.put_all(dict.fromkeys(self._fresh_days, True))
        self._fresh_days.clear()

    def rolled_back(self) -> None:
        self._contents.rolled_back()
        self._fresh_days.clear()
        # One that is remembered may have been dropped, by another engine or by hand: then PostgreSQL has refused the row, and
        # whoever tries it once more asks for its day again.
        self._days.clear()

    def forget(self) -> None:
        self._contents.forget()
        self._days.clear()

    def _kept(self, work: StoreReport) -> StoreReport:
        """On a day that others have too, whatever clock is wrong; and without events that are too old."""
        age = work.received_at - work.producer_timestamp
        if age < -AHEAD_MAX or (self._ttl is None and age > AGE_MAX):
            work = work.placed(work.received_at)
            age = timedelta(0)
        ttl = self._events_ttl
        if ttl is not None and (not ttl or age > ttl):
            return work.without_events()
        return work

    def _is_too_old(self, work: StoreReport) -> bool:
        """A day that is dropped at once, or that every writer would make again."""
        return self._ttl is not None and work.producer_timestamp < work.received_at - self._ttl

    def _stored(self, session: Session, reports: Sequence[StoreReport]) -> list[bytes]:
        """The hashes of those that are there. Nobody adds one meanwhile: their nodes are locked."""
        if not reports:
            return []
        times = [report.producer_timestamp for report in reports]
        # Whose time is not believed may lie on any day.
        is_odd = any(report.header.said_at is not None for report in reports)
        between = ALWAYS if is_odd else (min(times), max(times))
        hashes = Encoded(pgcopy.digest_array([report.header.hash for report in reports]))
        session.cursor.execute(query("stored_reports"), [hashes, *between], binary=True)
        return list({bytes(hash_) for (hash_,) in session.cursor})

    def _add(self, session: Session, reports: Sequence[StoreReport]) -> set[int]:
        """Adds them, but for those of which contents are missing: a writer before this one was given them, or they were deleted
        since. Returns the deliveries of these."""
        found = list(zip(reports, self._contents.resolve(session, reports), strict=True))
        lacking = {report.delivery for report, ids in found if ids is None}
        if any(report.is_complete and report.delivery in lacking for report in reports):
            raise Rejected("incomplete_work", "a decoder called its work complete and it was not")
        whole = [(report, ids) for report, ids in found if ids is not None]
        if whole:
            self._put(session, whole)
        return lacking

    def _put(self, session: Session, whole: Sequence[tuple[StoreReport, Ids]]) -> None:
        reports = [report for report, _ in whole]
        nodes = {
            certname: (node_id, is_out)
            for certname, node_id, is_out in read_nodes(
                session, "read_reporting_nodes", sorted({report.certname for report in reports})
            )
        }
        self._ensure_days(session, reports)
        session.copy(
            "copy_node_reports", [_row(report, nodes[report.certname][0], ids) for report, ids in whole]
        )
        session.counts.rows_written += len(reports)
        in_order = sorted(reports, key=lambda one: (one.producer_timestamp, one.header.hash))
        newest = {one.certname: one for one in in_order}
        # A plan says nothing of the node's own state.
        of_agents = {one.certname: one for one in in_order if one.header.type == "agent"}
        if of_agents:
            self._put_latest(session, [(nodes[certname][0], one) for certname, one in of_agents.items()])
        back = [(nodes[certname][0], one) for certname, one in newest.items() if nodes[certname][1]]
        if back:
            session.execute(
                "reactivate_reporting_nodes",
                {
                    "node_ids": [node_id for node_id, _ in back],
                    "producer_timestamps": [one.producer_timestamp for _, one in back],
                    "received_at": [one.received_at for _, one in back],
                    "future_tolerance": self._future_tolerance,
                },
            )

    def _ensure_days(self, session: Session, reports: Sequence[StoreReport]) -> None:
        days = {report.producer_timestamp.astimezone(UTC).date() for report in reports}
        unknown = sorted(day for day in days if self._days.get(day) is None)
        if unknown:
            session.cursor.execute(query("ensure_report_days"), [unknown])
            self._fresh_days.update(unknown)

    def _put_latest(self, session: Session, newest: Sequence[tuple[int, StoreReport]]) -> None:
        rows = [_latest(node_id, report) for node_id, report in sorted(newest)]
        session.execute(
            "put_latest_reports", [*column_parameters(_LATEST_OIDS, rows), self._future_tolerance]
        )


def _latest(node_id: int, report: StoreReport) -> tuple[bytes, ...]:
    header = report.header
    return (
        pgcopy.int4(node_id),
        pgcopy.text(header.environment),
        *map(pgcopy.int4, report.counts),
        pgcopy.boolean_or_null(header.noop),
        pgcopy.boolean_or_null(header.noop_pending),
        pgcopy.boolean_or_null(header.corrective_change),
        pgcopy.timestamptz(header.producer_timestamp),
        pgcopy.timestamptz(header.start_time),
        pgcopy.timestamptz(header.end_time),
        pgcopy.timestamptz(report.received_at),
        pgcopy.bytea(header.hash),
        pgcopy.text(header.status),
        pgcopy.text(header.job_id),
        pgcopy.text(header.cached_catalog_status),
    )


def _row(report: StoreReport, node_id: int, ids: Ids) -> bytes:
    header, metrics, events, logs = report.header, report.metrics, report.events, report.logs
    return pgcopy.row(
        pgcopy.timestamptz(header.producer_timestamp),
        pgcopy.NULL if header.said_at is None else pgcopy.timestamptz(header.said_at),
        pgcopy.timestamptz(report.received_at),
        pgcopy.timestamptz(header.start_time),
        pgcopy.timestamptz(header.end_time),
        pgcopy.uuid_or_null(header.transaction_uuid),
        pgcopy.uuid_or_null(header.catalog_uuid),
        pgcopy.int4(node_id),
        pgcopy.int4(ids.header),
        pgcopy.int4(ids.shape),
        pgcopy.bytea(header.hash),
        pgcopy.text(header.configuration_version),
        pgcopy.text(header.code_id),
        pgcopy.text(header.job_id),
        pgcopy.int4_array(ids.events) if ids.events else pgcopy.NULL,
        pgcopy.int8_array(events.offsets) if ids.events else pgcopy.NULL,
        pgcopy.NULL if ids.logs is None else pgcopy.int4_array(ids.logs),
        pgcopy.NULL if logs is None else pgcopy.int8_array(logs.offsets),
        pgcopy.NULL if metrics is None else metrics.values,
        pgcopy.text(None if metrics is None else metrics.exact),
    )
