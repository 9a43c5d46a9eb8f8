"""What facts and reports take of disk, WAL and network: measured amounts, multiplied."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ingest.capacity.calibration import Calibration, Runs
from ingest.capacity.fleet import Fleet
from ingest.capacity.run_costs import runs_of
from ingest.capacity.space import DAY_S, PAGE_BYTES, Space
from ingest.core.delivery.importance import CATALOG, FACTS, REPORT


class Keep(NamedTuple):
    """How long reports and their events are kept, in days; ``report_days`` 0: for ever."""

    report_days: float = 14.0
    event_days: float = 3650.0


KEEP = Keep()


class RunSpace(msgspec.Struct, frozen=True):
    measured: str  # when and whose, on what
    own: bool  # by the calibration itself, not when this program was made
    report_days: float  # 0: for ever
    with_events: bool
    report_bytes: float  # that one takes in the database, its events and indexes included
    reports_day_bytes: int
    reports_bytes: int  # of all days that are kept; of a year where all are
    facts_bytes: int
    database_bytes: int  # of both, once all days are there
    database_bytes_year: int
    wal_bytes_day: int
    wal_pages_bytes_day: int
    network_in_bytes_s: float
    network_database_bytes_s: float


def run_space(calibration: Calibration, fleet: Fleet, keep: Keep) -> RunSpace | None:
    """None where catalogs alone are planned."""
    ranks = [rank for rank in fleet.ranks if rank != CATALOG]
    if not ranks:
        return None
    runs = runs_of(calibration)
    report_bytes = _report_bytes(runs, fleet, with_events=keep.event_days > 0)
    a_day = fleet.per_s * DAY_S
    facts = fleet.nodes * runs.stored_bytes["facts_first"] if FACTS in ranks else 0.0
    day = a_day * report_bytes if REPORT in ranks else 0.0
    # Days go as a whole, so most of one more is there; what is kept for ever is told for a year.
    kept, there = (keep.report_days, keep.report_days + 1) if keep.report_days else (365.0, 365.0)
    each = {rank: _each(runs, fleet, rank) for rank in ranks}
    return RunSpace(
        measured=f"{runs.at} on {runs.cpu or 'an unnamed processor'}, bodies: {runs.bodies}",
        own=calibration.runs is not None,
        report_days=keep.report_days,
        with_events=keep.event_days > 0,
        report_bytes=report_bytes if REPORT in ranks else 0.0,
        reports_day_bytes=round(day),
        reports_bytes=round(day * kept),
        facts_bytes=round(facts),
        database_bytes=round(facts + day * there),
        database_bytes_year=round((facts + day * there) * (1 + fleet.growth)),
        wal_bytes_day=round(a_day * sum(one.wal_bytes for one in each.values())),
        wal_pages_bytes_day=round(a_day * _pages(runs, fleet, calibration.checkpoint_s, ranks)),
        network_in_bytes_s=fleet.per_s * sum(fleet.mean_bytes(rank) for rank in ranks),
        network_database_bytes_s=fleet.per_s * sum(one.copy_bytes for one in each.values()),
    )


def with_runs(space: Space, fleet: Fleet, runs: RunSpace | None) -> Space:
    """All of it together; without catalogs where those are not planned for."""
    if runs is None:
        return space
    if CATALOG not in fleet.ranks:
        space = msgspec.structs.replace(
            space, database_bytes=fleet.database_bytes or 0, database_bytes_year=0, wal_bytes_day=0, wal_pages_bytes_day=0,
            network_in_bytes_s=0.0, network_database_bytes_s=0.0,
        )  # fmt: skip
    # A database that was asked holds facts and reports already, perhaps not all days of them yet.
    now = space.database_bytes + (0 if fleet.database_bytes else runs.database_bytes)
    return msgspec.structs.replace(
        space,
        database_bytes=now,
        database_bytes_year=max(now, space.database_bytes_year + runs.database_bytes_year)
        if not fleet.database_bytes
        else max(space.database_bytes_year, runs.database_bytes_year),
        wal_bytes_day=space.wal_bytes_day + runs.wal_bytes_day,
        wal_pages_bytes_day=space.wal_pages_bytes_day + runs.wal_pages_bytes_day,
        network_in_bytes_s=space.network_in_bytes_s + runs.network_in_bytes_s,
        network_database_bytes_s=space.network_database_bytes_s + runs.network_database_bytes_s,
    )


class _Each(NamedTuple):
    wal_bytes: float
    copy_bytes: float


def _report_bytes(runs: Runs, fleet: Fleet, *, with_events: bool) -> float:
    """Of the mean report. What its events say is counted as if it were said of no other node."""
    events = runs.event_bytes * fleet.run_bytes[fleet.changed_kind] / fleet.run_bytes["report_few"]
    stored = {kind: runs.stored_bytes[kind] for kind in fleet.shares(REPORT)}
    if not with_events:
        stored[fleet.changed_kind] = max(0.0, stored[fleet.changed_kind] - events)
    return sum(share * stored[kind] for kind, share in fleet.shares(REPORT).items())


def _each(runs: Runs, fleet: Fleet, rank: int) -> _Each:
    """Of a message of that rank: the most that a round without fresh pages took, since small batches take more. Not of those that
    take seconds for a few messages, while the server writes for itself too."""
    wal = copy = 0.0
    for kind, share in fleet.shares(rank).items():
        rounds = [r for r in runs.rounds if kind in r.kinds and not r.fresh_pages and r.mode != "single"]
        wal += share * max(r.wal_bytes / r.messages for r in rounds)
        copy += share * max(r.copy_bytes / r.messages for r in rounds)
    return _Each(wal, copy)


def _pages(runs: Runs, fleet: Fleet, checkpoint_s: float, ranks: list[int]) -> float:
    """Full-page images a run. Reports are appended: they share pages as measured. Facts lie where their node does, and of those
    on one page only some report between two checkpoints."""
    total = 0.0
    for rank, kind in ((FACTS, "facts_next"), (REPORT, "report_unchanged")):
        rounds = [r for r in runs.rounds if kind in r.kinds and r.mode == "backlog"]
        fresh = [r.wal_bytes / r.messages for r in rounds if r.fresh_pages]
        if rank not in ranks or not fresh:
            continue
        used = [r.wal_bytes / r.messages for r in rounds if not r.fresh_pages]
        each = min(PAGE_BYTES, max(0.0, max(fresh) - sum(used) / max(1, len(used))))
        if rank == FACTS and each:
            a_page, share = PAGE_BYTES / each, min(1.0, checkpoint_s / fleet.interval_s)
            each = PAGE_BYTES * (1 - (1 - share) ** a_page) / (a_page * share)
        total += each
    return total
