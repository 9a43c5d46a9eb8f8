"""What a fleet takes of memory, disk, WAL and network: measured amounts, multiplied."""

from __future__ import annotations

import msgspec
import numpy as np

from ingest.capacity.calibration import KINDS, Calibration, Round
from ingest.capacity.costs import nonnegative
from ingest.capacity.fleet import Fleet, mean_body_bytes
from ingest.capacity.world import Setup
from ingest.core.delivery.routing import decoders_at_work

DAY_S = 86400.0
PAGE_BYTES = 8192


class Space(msgspec.Struct, frozen=True):
    memory_bytes: int  # of the engine: processes and the bodies under way
    memory_bytes_max: int  # with a full window
    postgresql_memory_bytes: int  # of the writers' server processes, without shared_buffers
    database_bytes: int
    database_bytes_year: int
    wal_bytes_day: int  # records
    wal_pages_bytes_day: int  # full-page images after checkpoints
    network_in_bytes_s: float  # bodies, broker to engine
    network_database_bytes_s: float  # COPY, engine to PostgreSQL


def space_of(calibration: Calibration, fleet: Fleet, setup: Setup, window_peak_bytes: int) -> Space:
    processes = _processes_bytes(calibration, setup)
    database_bytes, year_bytes = _database(calibration, fleet)
    wal, pages = _wal_day(calibration, fleet)
    scale = fleet.body_bytes / mean_body_bytes(calibration)
    copy = _each(calibration, "copy_bytes")
    shares = _shares(fleet)
    return Space(
        memory_bytes=processes + window_peak_bytes,
        memory_bytes_max=processes + setup.window_bytes_max,
        postgresql_memory_bytes=setup.writers
        * setup.instances
        * calibration.private_bytes.get("postgresql", 0),
        database_bytes=fleet.database_bytes or database_bytes,
        database_bytes_year=round(year_bytes * (fleet.database_bytes or database_bytes) / database_bytes),
        wal_bytes_day=wal,
        wal_pages_bytes_day=pages,
        network_in_bytes_s=fleet.per_s * fleet.body_bytes,
        network_database_bytes_s=fleet.per_s
        * scale
        * sum(copy[kind] * share for kind, share in shares.items()),
    )


def _processes_bytes(calibration: Calibration, setup: Setup) -> int:
    each = calibration.private_bytes
    at_work = min(setup.workers, decoders_at_work(setup.cores))
    # A decoder that gets no messages stays as it started: about what the supervisor has.
    decoders = at_work * each["decoder"] + (setup.workers - at_work) * each["supervisor"]
    return setup.instances * (
        each["supervisor"] + each["receiver"] + decoders + setup.writers * each["writer"]
    )


def _database(calibration: Calibration, fleet: Fleet) -> tuple[int, int]:
    """(once every node is stored, a year later)."""
    sizes = calibration.sizes
    roles_bytes, all_bytes = sum(sizes.role_bytes.values()), sum(sizes.first_bytes.values())
    node_bytes = max(0.0, (all_bytes - roles_bytes) / (sizes.nodes - sizes.roles))
    role_bytes = max(0.0, roles_bytes / sizes.roles - node_bytes)
    scale = fleet.body_bytes / mean_body_bytes(calibration)
    now = scale * (fleet.roles * role_bytes + fleet.nodes * node_bytes)
    year = scale * (fleet.roles * role_bytes + fleet.nodes * (1 + fleet.growth) * node_bytes)
    # Only the newest catalogs are kept, so a fleet that does not grow adds none; updates and releases leave
    # room behind that is used again.
    loose = max(1.0, sum(sizes.collected_bytes.values()) / all_bytes)
    return max(1, round(now)), round(year * loose)


def _wal_day(calibration: Calibration, fleet: Fleet) -> tuple[int, int]:
    """(records, full-page images)."""
    scale = fleet.body_bytes / mean_body_bytes(calibration)
    record_bytes = _each(calibration, "wal_bytes")
    a_day = fleet.per_s * DAY_S
    # An unchanged catalog's record is as long as any other's.
    records = sum(
        a_day * share * record_bytes[kind] * (1 if kind == "unchanged" else scale)
        for kind, share in _shares(fleet).items()
    )
    return round(records), round(_pages_day(calibration, fleet, record_bytes, scale))


def _pages_day(calibration: Calibration, fleet: Fleet, record_bytes: dict[str, float], scale: float) -> float:
    """The first change of a page after a checkpoint logs all of it. Headers of unchanged catalogs share pages; of the
    others each is taken to have pages of its own, as measured right after a checkpoint."""
    checkpoints_day = DAY_S / calibration.checkpoint_s
    reporting = fleet.per_s * calibration.checkpoint_s
    a_page = calibration.sizes.nodes / max(1, calibration.sizes.catalogs_pages)
    pages = fleet.nodes / a_page
    touched = pages * (1 - max(0.0, 1 - min(1.0, fleet.unchanged * reporting / fleet.nodes)) ** a_page)
    total: float = checkpoints_day * touched * PAGE_BYTES
    for kind, share in _shares(fleet).items():
        fresh = [r for r in calibration.rounds if r.fresh_pages and kind in r.kinds]
        if kind != "unchanged" and fresh:
            images = sum(r.wal_bytes for r in fresh) / sum(r.messages for r in fresh) - record_bytes[kind]
            total += fleet.per_s * DAY_S * share * max(0.0, images) * scale
    return total


def _each(calibration: Calibration, field: str) -> dict[str, float]:
    """Mean bytes a message of each kind, of rounds whose pages were not fresh."""
    rounds = [r for r in calibration.rounds if r.mode != "single" and not r.fresh_pages and r.name != "roles"]
    names = [kind for kind in KINDS if any(kind in r.kinds for r in rounds)]
    rows = np.array([[_part(r, kind) for kind in names] for r in rounds])
    totals = np.array([float(getattr(r, field)) for r in rounds])
    found = dict(zip(names, nonnegative(rows, totals), strict=True))
    return {kind: found.get(kind, 0.0) for kind in KINDS}


def _part(round_: Round, kind: str) -> float:
    return float(round_.kinds.get(kind, 0))


def _shares(fleet: Fleet) -> dict[str, float]:
    return {"unchanged": fleet.unchanged, "few": fleet.parameters, "upgrade": fleet.upgrade}
