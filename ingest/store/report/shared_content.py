"""What reports consist of, as ids: looked up in the caches, then in the database, else inserted; and said to be in use."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date
from typing import NamedTuple

from ingest.core import pgcopy
from ingest.core.bounded_cache import BoundedCache
from ingest.core.delivery.work import DIGEST_BYTES
from ingest.core.report.shared_content import digest_of
from ingest.core.report.work import Metrics, Parts, ReportHeader, StoreReport
from ingest.store.content_table import ContentTable
from ingest.store.queries import query
from ingest.store.session import Session

_USED_BYTES = 150  # a digest in the table of those that are in use today
SHAPE_OIDS = (pgcopy.BYTEA_OID, pgcopy.JSONB_OID)
EVENT_OIDS = (
    pgcopy.BYTEA_OID, *[pgcopy.TEXT_OID] * 9, pgcopy.INT8_OID, pgcopy.TEXT_ARRAY_OID, pgcopy.TEXT_OID, pgcopy.BOOL_OID,
)  # fmt: skip
LOG_OIDS = (
    pgcopy.BYTEA_OID, pgcopy.TEXT_OID, pgcopy.TEXT_OID, pgcopy.INT4_OID, pgcopy.TEXT_OID, pgcopy.TEXT_ARRAY_OID,
    pgcopy.TEXT_OID, pgcopy.INT8_OID,
)  # fmt: skip
HEADER_OIDS = (pgcopy.BYTEA_OID, pgcopy.INT4_OID, *[pgcopy.BOOL_OID] * 4, *[pgcopy.TEXT_OID] * 5)


Said = tuple[int | None, bool | None, bool | None, bool | None, str, *tuple[str | None, ...]]


class Ids(NamedTuple):
    """Of what one report refers to."""

    header: int
    shape: int | None
    events: list[int]
    logs: list[int] | None


class UsedTable:
    """A content table whose rows say on which day they were last used."""

    def __init__(self, name: str, entries_max: int, oids: Sequence[int]) -> None:
        self._table = ContentTable(name, entries_max, oids)
        self._name = name
        self._used: BoundedCache[bytes, bool] = BoundedCache(
            max(1, entries_max) * _USED_BYTES, lambda digest, _: _USED_BYTES, entry_bytes_max=_USED_BYTES
        )
        self._fresh: set[bytes] = set()

    def resolve(
        self, session: Session, digests: Collection[bytes], rows: Mapping[bytes, Callable[[], bytes]]
    ) -> dict[bytes, int]:
        """The ids of those digests that the database has; of those that it has not the rows at hand are inserted. All are in
        use today from now on."""
        ids = self._table.known(digests)
        if len(ids) < len(digests):
            ids.update(self._table.find(session, set(digests) - ids.keys()))
        new = {digest: make for digest, make in rows.items() if digest not in ids}
        if new:
            before = self._table.rows_written
            ids.update(self._table.insert(session, new))
            session.counts.rows_written += self._table.rows_written - before
        old = [digest for digest in ids if digest not in new and self._used.get(digest) is None]
        if old:
            session.cursor.execute(query(f"use_{self._name}"), [sorted(ids[digest] for digest in old)])
            session.counts.rows_written += max(0, session.cursor.rowcount)
        self._fresh.update(old, new)
        return ids

    def committed(self) -> None:
        self._table.committed()
        self._used.put_all(dict.fromkeys(self._fresh, True))
        self._fresh.clear()

    def rolled_back(self) -> None:
        self._table.rolled_back()
        self._fresh.clear()

    def forget(self) -> None:
        self._table.forget()
        self.forget_uses()

    def forget_uses(self) -> None:
        """A new day: each has to be said to be in use once more."""
        self._used.clear()
        self._fresh.clear()


class ReportContents:
    """The content tables of reports, of one writer."""

    def __init__(self, cache_entries_max: int) -> None:
        self._shapes = UsedTable("metric_shapes", 1000, SHAPE_OIDS)
        self._headers = UsedTable("report_headers", 10_000, HEADER_OIDS)
        self._events = UsedTable("event_contents", cache_entries_max // 4, EVENT_OIDS)
        self._logs = UsedTable("log_contents", cache_entries_max // 4, LOG_OIDS)
        self._tables = (self._shapes, self._headers, self._events, self._logs)
        self._day = date.min

    def resolve(self, session: Session, reports: Sequence[StoreReport]) -> list[Ids | None]:
        """Of each report. None: something that it refers to is missing."""
        self._begin_day(max(report.received_at for report in reports).date())
        shapes = self._shape_ids(session, [one.metrics for one in reports if one.metrics is not None])
        headers = self._header_ids(session, {said_by(report.header) for report in reports})
        of_events = [_digests(report.events) for report in reports]
        events = self._events.resolve(
            session,
            {digest for digests in of_events for digest in digests}.union(
                *[report.log_events.values() for report in reports]
            ),
            {
                digest: _row(digest, its, fields=13)
                for one in reports
                for digest, its in one.event_contents.items()
            },
        )
        of_logs = [None if report.logs is None else _digests(report.logs) for report in reports]
        logs = self._logs.resolve(
            session,
            {digest for digests in of_logs if digests is not None for digest in digests},
            {
                digest: _log_row(digest, *its, None if event is None else events[event])
                for one in reports
                for digest, its in one.log_contents.items()
                if (event := one.log_events.get(digest)) is None or event in events
            },
        )
        found: list[Ids | None] = []
        for report, its_events, its_logs in zip(reports, of_events, of_logs, strict=True):
            try:
                ids = Ids(
                    headers[said_by(report.header)],
                    None if report.metrics is None else shapes[report.metrics.shape],
                    [events[digest] for digest in its_events],
                    None if its_logs is None else [logs[digest] for digest in its_logs],
                )
            except KeyError:
                ids = None
            found.append(ids)
        return found

    def _shape_ids(self, session: Session, metrics: Sequence[Metrics]) -> dict[bytes, int]:
        rows = {one.shape: _row(one.shape, one.names, fields=1) for one in metrics if one.names is not None}
        return self._shapes.resolve(session, {one.shape for one in metrics}, rows)

    def _header_ids(self, session: Session, said: Collection[Said]) -> dict[Said, int]:
        fields = {one: header_fields(*one) for one in said}
        digests = {one: digest_of(its) for one, its in fields.items()}
        rows = {digests[one]: _row(digests[one], its, fields=10) for one, its in fields.items()}
        ids = self._headers.resolve(session, rows.keys(), rows)
        return {one: ids[digest] for one, digest in digests.items()}

    def committed(self) -> None:
        for table in self._tables:
            table.committed()

    def rolled_back(self) -> None:
        for table in self._tables:
            table.rolled_back()

    def forget(self) -> None:
        for table in self._tables:
            table.forget()

    def _begin_day(self, day: date) -> None:
        if day != self._day:
            self._day = day
            for table in self._tables:
                table.forget_uses()


def said_by(header: ReportHeader) -> Said:
    """What few reports say differently."""
    return (
        header.report_format,
        header.noop,
        header.noop_pending,
        header.corrective_change,
        header.type,
        header.status,
        header.environment,
        header.producer,
        header.puppet_version,
        header.cached_catalog_status,
    )


def header_fields(
    report_format: int | None,
    noop: bool | None,
    noop_pending: bool | None,
    corrective_change: bool | None,
    type_: str,
    *texts: str | None,
) -> bytes:
    flags = map(pgcopy.boolean_or_null, (noop, noop_pending, corrective_change, type_ == "plan"))
    return b"".join((pgcopy.int4(report_format), *flags, *map(pgcopy.text, texts)))


def _digests(parts: Parts) -> list[bytes]:
    digests = parts.digests
    return [digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES)]


def _row(digest: bytes, encoded: bytes, *, fields: int) -> Callable[[], bytes]:
    return lambda: b"".join((pgcopy.count(1 + fields), pgcopy.bytea(digest), encoded))


def _log_row(digest: bytes, before: bytes, behind: bytes, event: int | None) -> Callable[[], bytes]:
    return lambda: b"".join((pgcopy.count(8), pgcopy.bytea(digest), before, pgcopy.int4(event), behind))
