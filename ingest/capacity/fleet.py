"""The fleet that is planned for: how many nodes, how often, what their catalogs are like."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from ingest.capacity.calibration import FACTS_KINDS, REPORT_KINDS, Calibration
from ingest.capacity.run_costs import runs_of
from ingest.capacity.world import Arrival
from ingest.core.delivery.importance import CATALOG, FACTS, RANKS, REPORT
from ingest.core.delivery.routing import decoders_at_work
from ingest.errors import Misconfigured, Refused
from ingest.store.capacity import StoredFleet

NODES_MAX = 10_000_000
GROWTH_MAX = 100
BODY_BYTES_MIN = 1024  # less is no catalog
LEAD_S = 2.0  # from a run's facts to its catalog: what a compile takes
SIGMA = 0.75  # of a catalog size's logarithm; that of real catalogs


class Fleet(msgspec.Struct, frozen=True):
    nodes: int
    interval_s: float
    unchanged: float
    parameters: float
    upgrade: float
    body_bytes: int  # mean
    roles: int
    growth: float  # nodes in a year, as a share
    database_bytes: int | None = None  # where the database was asked
    origin: str = "as given"
    kinds: tuple[str, ...] = ("catalog",)  # what a run sends of these: the names of ``importance.RANKS``
    run_s: float = 20.0  # from a run's catalog to its report
    reports_changed: float = 0.0  # share of them that have changes
    changed_kind: str = "report_few"  # what those cost
    run_bytes: dict[str, int] = {}  # mean body of facts and reports, by kind

    @property
    def per_s(self) -> float:
        """Runs."""
        return self.nodes / self.interval_s

    @property
    def ranks(self) -> tuple[int, ...]:
        """Of what is planned, the most important first."""
        return tuple(rank for rank, name in enumerate(RANKS) if name in self.kinds)

    def shares(self, rank: int) -> dict[str, float]:
        """How much of that rank's messages is of which kind."""
        if rank == CATALOG:
            return {"unchanged": self.unchanged, "few": self.parameters, "upgrade": self.upgrade}
        if rank == FACTS:
            return {"facts_next": 1.0}
        return {"report_unchanged": 1 - self.reports_changed, self.changed_kind: self.reports_changed}

    def mean_bytes(self, rank: int) -> float:
        if rank == CATALOG:
            return self.body_bytes
        return sum(share * self.run_bytes[kind] for kind, share in self.shares(rank).items())


class Wanted(NamedTuple):
    """A fleet as it is asked for. None: as the calibration has it."""

    nodes: int
    interval_s: float
    run_s: float
    unchanged: float
    parameters: float | None
    upgrade: float | None
    body_bytes: int | None
    roles: int | None
    growth: float
    kinds: tuple[str, ...] = ("catalog",)
    reports_changed: float = 0.0


def fleet_of(wanted: Wanted, body_bytes_max: int, calibration: Calibration | None) -> Fleet:
    """Raises Misconfigured for one that cannot be.

    Without a calibration, which takes its time, what was asked for is checked all the same.
    """
    _require_possible(wanted)
    parameters, upgrade = _shares(wanted.unchanged, wanted.parameters, wanted.upgrade)
    body_bytes, roles = wanted.body_bytes, wanted.roles
    if body_bytes is None:
        body_bytes = mean_body_bytes(calibration) if calibration is not None else BODY_BYTES_MIN
    _require_bytes(body_bytes, body_bytes_max)
    if roles is None:
        roles = min(wanted.nodes, calibration.sizes.roles) if calibration is not None else 1
    if not 1 <= roles <= wanted.nodes:
        raise Misconfigured(
            "--roles", f"{roles} roles for {wanted.nodes} nodes: between 1 and as many as there are nodes"
        )
    its = run_bytes(calibration) if calibration is not None else {}
    return Fleet(
        wanted.nodes, wanted.interval_s, wanted.unchanged, parameters, upgrade, body_bytes, roles, wanted.growth,
        kinds=wanted.kinds, run_s=wanted.run_s, reports_changed=wanted.reports_changed, run_bytes=its,
    )  # fmt: skip


def _require_bytes(body_bytes: int, body_bytes_max: int) -> None:
    if body_bytes < BODY_BYTES_MIN:
        raise Misconfigured(
            "--catalog-size", f"{body_bytes} bytes is not a catalog: at least {BODY_BYTES_MIN}"
        )
    if body_bytes > body_bytes_max:
        raise Misconfigured(
            "--catalog-size",
            f"{body_bytes} bytes is over body_bytes_max={body_bytes_max}: all would be quarantined",
        )


def _require_possible(wanted: Wanted) -> None:
    if wanted.nodes < 1:
        raise Misconfigured("--nodes", f"{wanted.nodes} is no fleet: at least 1")
    if wanted.nodes > NODES_MAX:
        raise Misconfigured(
            "--nodes", f"{wanted.nodes} is more than {NODES_MAX}, the most that is planned for"
        )
    if wanted.interval_s <= wanted.run_s:
        raise Misconfigured(
            "--interval",
            f"{wanted.interval_s:g} s is not longer than a run of the agent, {wanted.run_s:g} s (--run)",
        )
    if not -1 <= wanted.growth <= GROWTH_MAX:
        raise Misconfigured(
            "--growth", f"{wanted.growth:g} is not between -1 (no fleet left) and {GROWTH_MAX}"
        )
    if not 0 <= wanted.reports_changed <= 1:
        raise Misconfigured(
            "--reports-changed", f"{wanted.reports_changed:g} is not a share: between 0 and 1"
        )


def run_bytes(calibration: Calibration) -> dict[str, int]:
    """The mean body of each kind of facts and reports."""
    found: dict[str, int] = {}
    for kind in (*FACTS_KINDS, *REPORT_KINDS):
        rounds = [r for r in runs_of(calibration).rounds if kind in r.kinds]
        found[kind] = sum(r.kind_bytes[kind] for r in rounds) // max(1, sum(r.kinds[kind] for r in rounds))
    return found


def described(stored: StoredFleet, calibration: Calibration | None) -> tuple[int, float, int | None]:
    """(nodes, interval, mean bytes of a catalog) of the fleet that is stored. Raises Refused for an empty one.

    Half of a fleet reports within half an interval: the median age against the newest catalog is half the interval,
    whatever nodes stopped reporting long ago. Bodies are not kept: their size comes from the number of resources.
    """
    if not stored.nodes:
        raise Refused("the database holds no catalogs: describe the fleet with --nodes and --interval")
    body_bytes = None
    if calibration is not None:
        resource_bytes = mean_body_bytes(calibration) * calibration.sizes.nodes / calibration.sizes.resources
        body_bytes = max(BODY_BYTES_MIN, round(stored.mean_resources * resource_bytes))
    return stored.nodes, 2 * stored.median_age_s, body_bytes


def mean_body_bytes(calibration: Calibration) -> int:
    """Of the calibration's catalogs; all its nodes have a part in the rounds named "first" and "roles"."""
    first = [r for r in calibration.rounds if "first" in r.kinds and r.mode == "backlog"]
    return sum(r.body_bytes for r in first) // max(1, sum(r.messages for r in first))


def arrivals(
    fleet: Fleet, count: int, *, per_s: float | None, cores: int, seed: int, kind: str | None = None
) -> Iterator[Arrival]:
    """Of so many runs of a fleet whose nodes have nothing to do with one another: random times at a rate, or all at once.

    ``kind`` makes all catalogs of that kind, as a deploy does, whose reports all have changes.
    """
    catalogs = _catalogs(fleet, count, per_s=per_s, cores=cores, seed=seed, kind=kind)
    if fleet.ranks == (CATALOG,):
        yield from catalogs
        return
    chance = random.Random(seed)
    found = []
    whole = list(catalogs)
    end_s = whole[-1].due_s or 1.0
    for one in whole:
        changed = kind is not None or chance.random() < fleet.reports_changed
        report = fleet.changed_kind if changed else "report_unchanged"
        for rank, lag_s, its in (
            (FACTS, -LEAD_S, "facts_next"),
            (CATALOG, 0.0, one.kind),
            (REPORT, fleet.run_s, report),
        ):
            if rank in fleet.ranks:
                size = one.body_bytes if rank == CATALOG else fleet.run_bytes[its]
                # What would come after the end comes at the beginning: so the mix is the same all the time.
                found.append(Arrival((one.due_s + lag_s) % end_s if per_s else 0.0, its, size, one.node))
    yield from sorted(found, key=lambda arrival: arrival.due_s)


def _catalogs(
    fleet: Fleet, count: int, *, per_s: float | None, cores: int, seed: int, kind: str | None
) -> Iterator[Arrival]:
    chance = random.Random(seed)
    mix = fleet.shares(CATALOG)
    kinds, weights = (list(mix), list(mix.values())) if kind is None else ([kind], [1.0])
    # The first node of a role (at each decoder) brings what an upgrade changed.
    share_new = min(1.0, fleet.roles * decoders_at_work(cores) / fleet.nodes)
    mean_log = math.log(fleet.body_bytes) - SIGMA**2 / 2
    at_s = 0.0
    for _ in range(count):
        if per_s:
            at_s += chance.expovariate(per_s)
        found = chance.choices(kinds, weights)[0]
        if found == "upgrade" and chance.random() < share_new:
            found = "upgrade_new"
        body_bytes = min(
            max(chance.lognormvariate(mean_log, SIGMA), fleet.body_bytes / 10), fleet.body_bytes * 3
        )
        yield Arrival(at_s, found, round(body_bytes), chance.getrandbits(32))


def _shares(unchanged: float, parameters: float | None, upgrade: float | None) -> tuple[float, float]:
    """(few parameters, upgrade); what is not given is the rest. Raises Misconfigured."""
    for flag, value in (("--unchanged", unchanged), ("--parameters", parameters), ("--upgrade", upgrade)):
        if value is not None and not 0 <= value <= 1:
            raise Misconfigured(flag, f"{value:g} is not a share: between 0 and 1")
    rest = 1 - unchanged
    if upgrade is None:
        # Releases are rarer than changes of data; a tenth of the changes where nobody says otherwise.
        upgrade = rest / 10 if parameters is None else max(0.0, rest - parameters)
    if parameters is None:
        parameters = max(0.0, rest - upgrade)
    total = unchanged + parameters + upgrade
    if not math.isclose(total, 1, abs_tol=1e-6):
        raise Misconfigured(
            "--unchanged", f"the shares {unchanged:g} + {parameters:g} (--parameters) + {upgrade:g} (--upgrade) are "
            f"{total:g}, not 1",
        )  # fmt: skip
    return parameters, upgrade
