"""What a plan consists of."""

from __future__ import annotations

import msgspec

from ingest.capacity.calibration import Machine
from ingest.capacity.cluster import Cluster, ClusterCosts, Part
from ingest.capacity.fleet import Fleet
from ingest.capacity.run_space import RunSpace
from ingest.capacity.space import Space


class KindCase(msgspec.Struct, frozen=True):
    """Catalogs, facts or reports at the offered load."""

    kind: str
    per_s: float
    body_bytes: int  # mean
    p50_s: float | None  # freshness; none where the queue grows for ever
    p99_s: float | None
    last_s: float | None  # of all that were simulated
    before_next_run: bool


class Case(msgspec.Struct, frozen=True):
    """One row: a fleet on a machine."""

    name: str
    nodes: int
    interval_s: float
    cores: int
    workers: int
    instances: int
    offered_per_s: float
    limit_per_s: float  # runs a second that come through when the engine is never idle
    utilisation: dict[str, float]  # by stage, at the offered load; over 1: does not fit
    utilisation_at_limit: dict[str, float]
    bottleneck: str
    p50_s: (
        float | None
    )  # of the most important kind: freshness at the offered load; none where the queue grows for ever
    p99_s: float | None
    nodes_fit: int
    headroom: float  # nodes that fit, over nodes planned
    kinds: tuple[KindCase, ...] = ()

    @property
    def fits(self) -> bool:
        return self.nodes_fit >= self.nodes


class Burst(msgspec.Struct, frozen=True):
    """Many catalogs at once, until they are stored."""

    messages: int
    seconds: float | None  # none: it never ends, more arrives than is stored
    times_s: tuple[float, ...]
    waiting: tuple[int, ...]  # messages not stored yet, at these times
    body_bytes: int = 0  # of all of them
    kinds_s: dict[str, float] = {}  # when the last of a kind is stored


class Curve(msgspec.Struct, frozen=True):
    """Freshness by load."""

    nodes: tuple[int, ...]
    p50_s: tuple[float, ...]
    p99_s: tuple[float, ...]


class PlannedCluster(msgspec.Struct, frozen=True):
    """Where engines do not stand alone."""

    machines: Cluster
    costs: ClusterCosts
    parts: tuple[Part, ...]  # the fullest first


class Plan(msgspec.Struct, frozen=True):
    at: str
    program: str
    fleet: Fleet
    target_s: float
    outage_s: float
    machine: Machine
    calibrated_at: str
    calibration_commit: str
    calibration_templates: str
    calibration_disturbed: float  # share of its cores that others used meanwhile
    broker_here: bool
    database_apart: bool
    base: Case
    space: Space
    outage: Burst
    deploy: Burst
    deploy_p99_s: float | None  # when the nodes keep to their interval
    curve: Curve
    what_if: tuple[Case, ...]
    interrupted: bool = False
    cluster: PlannedCluster | None = None
    runs: RunSpace | None = None  # of facts and reports, where they are planned for
