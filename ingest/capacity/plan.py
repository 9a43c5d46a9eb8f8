"""The plan: what a fleet needs of this engine, as planned for and under other conditions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import msgspec

from ingest.capacity.calibration import Calibration
from ingest.capacity.cluster import Cluster, Load, built_in, parts_of
from ingest.capacity.costs import Costs, costs_of
from ingest.capacity.fleet import Fleet, arrivals
from ingest.capacity.planned import Burst, Case, Curve, KindCase, Plan, PlannedCluster
from ingest.capacity.run_costs import all_costs_of
from ingest.capacity.run_space import KEEP, Keep, run_space, with_runs
from ingest.capacity.simulation import Outcome, simulate
from ingest.capacity.space import DAY_S, Space, space_of
from ingest.capacity.world import Setup
from ingest.core.delivery.importance import CATALOG, RANKS, REPORT

LOAD_MAX = 0.95  # of the limit: as far as `make bench-capacity` checks the model against the engine
LIMIT_MESSAGES = 4000
LOAD_MESSAGES = 5000  # fifty of them lie above p99
BURST_MESSAGES_MAX = 20_000  # of a backlog or a deploy; larger ones are scaled
CURVE_LOADS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
POINTS = 120  # of a curve over time

Progress = Callable[[str, float], None]


def plan(
    calibration: Calibration,
    fleet: Fleet,
    setup: Setup,
    *,
    target_s: float,
    outage_s: float,
    keep: Keep = KEEP,
    cluster: Cluster | None = None,
    progress: Progress = lambda what, share: None,
) -> Plan:
    """Simulates everything the report tells. Ctrl-C while the what-if rows are made leaves those that are."""
    costs = _costs(calibration, fleet, cluster)
    progress("as planned", 0.0)
    base, outcome = _case("as planned", costs, fleet, setup, target_s)
    progress("by load", 0.15)
    curve = _curve(costs, fleet, setup, base)
    progress("after an outage", 0.3)
    outage = _outage(costs, fleet, setup, base, outage_s)
    progress("deploy", 0.4)
    deploy = _burst(costs, fleet, setup, fleet.nodes, "upgrade")
    upgrading = msgspec.structs.replace(fleet, unchanged=0.0, parameters=0.0, upgrade=1.0)
    deploy_case, _ = _case("deploy", costs, upgrading, setup, target_s)
    rows, interrupted = _what_if(costs, fleet, setup, target_s, progress)
    runs = run_space(calibration, fleet, keep)
    space = with_runs(space_of(calibration, fleet, setup, outcome.window_bytes_max), fleet, runs)
    return Plan(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        program=calibration.program,
        fleet=fleet,
        target_s=target_s,
        outage_s=outage_s,
        machine=calibration.machine,
        calibrated_at=calibration.at,
        calibration_commit=calibration.commit,
        calibration_templates=calibration.templates,
        calibration_disturbed=_disturbed(calibration),
        broker_here=setup.broker_here,
        database_apart=setup.database_apart,
        base=base,
        space=space,
        runs=runs,
        outage=outage,
        deploy=deploy,
        deploy_p99_s=deploy_case.p99_s,
        curve=curve,
        what_if=rows,
        cluster=None if cluster is None else _cluster(cluster, fleet, setup, base, space),
        interrupted=interrupted,
    )


def _disturbed(calibration: Calibration) -> float:
    used = [r.elsewhere_s / (r.seconds * calibration.machine.cores) for r in calibration.rounds]
    return sum(used) / len(used)


def _costs(calibration: Calibration, fleet: Fleet, cluster: Cluster | None) -> Costs:
    costs = costs_of(calibration) if fleet.ranks == (CATALOG,) else all_costs_of(calibration)
    if cluster is None or not cluster.standbys:
        return costs
    return costs._replace(commit_s=costs.commit_s + built_in().standby_wait_s)


def _cluster(cluster: Cluster, fleet: Fleet, setup: Setup, base: Case, space: Space) -> PlannedCluster:
    """Of the machines beside the engines. What is simulated is taken as it is at the limit, in proportion."""
    used = base.offered_per_s / base.limit_per_s
    load = Load(
        nodes=fleet.nodes,
        messages=fleet.per_s * len(fleet.ranks),
        bodies_bytes=space.network_in_bytes_s,
        wal_bytes=(space.wal_bytes_day + space.wal_pages_bytes_day) / DAY_S,
        copy_bytes=space.network_database_bytes_s,
        engines_used=used,
        primary_cores=used * base.utilisation_at_limit["PostgreSQL"] * setup.cores,
    )
    costs = built_in()
    return PlannedCluster(
        cluster, costs, parts_of(load, cluster, costs, engines=setup.instances, cores=setup.cores)
    )


def _what_if(
    costs: Costs, fleet: Fleet, setup: Setup, target_s: float, progress: Progress
) -> tuple[tuple[Case, ...], bool]:
    """The rows, and whether Ctrl-C cut them short."""
    rows: list[Case] = []
    try:
        others = list(_others(costs, fleet, setup))
        for number, (name, its_costs, its_fleet, its_setup) in enumerate(others):
            progress(f"what if: {name}", 0.5 + 0.5 * number / len(others))
            rows.append(_case(name, its_costs, its_fleet, its_setup, target_s)[0])
    except KeyboardInterrupt:
        return tuple(rows), True
    return tuple(rows), False


def _others(costs: Costs, fleet: Fleet, setup: Setup) -> Iterator[tuple[str, Costs, Fleet, Setup]]:
    yield "twice the nodes", costs, msgspec.structs.replace(fleet, nodes=2 * fleet.nodes), setup
    yield "every 15 minutes", costs, msgspec.structs.replace(fleet, interval_s=900.0), setup
    for cores in (4, 8, 16):
        if cores != setup.cores:
            larger = setup._replace(cores=cores, workers=cores, writers=max(2, cores // 2))
            yield f"{cores} cores", costs, fleet, larger
    if setup.instances == 1:
        yield "two instances", costs, fleet, setup._replace(instances=2)
    if not setup.database_apart:
        yield "PostgreSQL on a machine of its own", costs, fleet, setup._replace(database_apart=True)
    # Many more roles than the calibration had: what a decoder remembers is then seldom what it needs.
    new = costs.decoder["upgrade_new"]
    unmet = costs._replace(decoder=costs.decoder | {"few": new, "upgrade": new})
    yield "roles that decoders' caches cannot hold", unmet, fleet, setup
    if REPORT in fleet.ranks:
        all_changed = msgspec.structs.replace(fleet, reports_changed=1.0)
        yield "every report has changes", costs, all_changed, setup


def _case(name: str, costs: Costs, fleet: Fleet, setup: Setup, target_s: float) -> tuple[Case, Outcome]:
    # From one queue in the order of runs: in the order of importance no report would come before the last catalog.
    full = _simulate(costs, fleet, setup._replace(queues=(0, 0, 0)), LIMIT_MESSAGES, None)
    limit_per_s = middle_rate(full.finished_s) / len(fleet.ranks)
    offered = fleet.per_s
    stable = offered < limit_per_s
    outcome = _simulate(costs, fleet, setup, LOAD_MESSAGES, min(offered, LOAD_MAX * limit_per_s))
    factor = 1.0 if offered <= LOAD_MAX * limit_per_s else offered / (LOAD_MAX * limit_per_s)
    fit_per_s = _fit(costs, fleet, setup, limit_per_s, target_s)
    most_important = outcome.freshness_of(fleet.ranks[0])
    case = Case(
        name=name,
        nodes=fleet.nodes,
        interval_s=fleet.interval_s,
        cores=setup.cores,
        workers=setup.workers,
        instances=setup.instances,
        offered_per_s=offered,
        limit_per_s=limit_per_s,
        utilisation={stage: busy * factor for stage, busy in outcome.busy.items()},
        utilisation_at_limit=full.busy,
        bottleneck=max(full.busy, key=lambda stage: full.busy[stage]),
        p50_s=quantile(most_important, 0.5) if stable else None,
        p99_s=quantile(most_important, 0.99) if stable else None,
        nodes_fit=int(fit_per_s * fleet.interval_s),
        headroom=fit_per_s * fleet.interval_s / fleet.nodes,
        kinds=_kinds(fleet, outcome, stable=stable),
    )
    return case, outcome


def _kinds(fleet: Fleet, outcome: Outcome, *, stable: bool) -> tuple[KindCase, ...]:
    found = []
    for rank in fleet.ranks:
        freshness_s = outcome.freshness_of(rank)
        found.append(
            KindCase(
                kind=RANKS[rank],
                per_s=fleet.per_s,
                body_bytes=round(fleet.mean_bytes(rank)),
                p50_s=quantile(freshness_s, 0.5) if stable else None,
                p99_s=quantile(freshness_s, 0.99) if stable else None,
                last_s=max(freshness_s) if stable else None,
                before_next_run=stable and max(freshness_s) < fleet.interval_s,
            )
        )
    return tuple(found)


def _fit(costs: Costs, fleet: Fleet, setup: Setup, limit_per_s: float, target_s: float) -> float:
    """The highest rate, up to ``LOAD_MAX`` of the limit, whose p99 freshness is under the target."""

    def is_fresh(per_s: float) -> bool:
        outcome = _simulate(costs, fleet, setup, LOAD_MESSAGES, per_s)
        first, *others = (quantile(outcome.freshness_of(rank), 0.99) for rank in fleet.ranks)
        return first <= target_s and all(other < fleet.interval_s for other in others)

    high = LOAD_MAX * limit_per_s
    if is_fresh(high):
        return high
    low = 0.01 * limit_per_s
    if not is_fresh(low):
        return 0.0
    for _ in range(7):  # to a hundredth of the limit
        middle = (low + high) / 2
        low, high = (middle, high) if is_fresh(middle) else (low, middle)
    return low


def _curve(costs: Costs, fleet: Fleet, setup: Setup, base: Case) -> Curve:
    loads = set(CURVE_LOADS)
    if base.offered_per_s < LOAD_MAX * base.limit_per_s:
        loads.add(base.offered_per_s / base.limit_per_s)
    found = [
        (
            load,
            _simulate(costs, fleet, setup, LOAD_MESSAGES, load * base.limit_per_s).freshness_of(
                fleet.ranks[0]
            ),
        )
        for load in sorted(loads)
    ]
    return Curve(
        tuple(round(load * base.limit_per_s * fleet.interval_s) for load, _ in found),
        tuple(quantile(values, 0.5) for _, values in found),
        tuple(quantile(values, 0.99) for _, values in found),
    )


def _outage(costs: Costs, fleet: Fleet, setup: Setup, base: Case, outage_s: float) -> Burst:
    """The queues hold what came in that time, and more comes while they are emptied."""
    runs = max(1, round(fleet.per_s * outage_s))
    if fleet.per_s >= base.limit_per_s:
        return Burst(runs * len(fleet.ranks), None, (), (), _bytes(fleet, runs))
    full = _burst(costs, fleet, setup, runs, None)
    assert full.seconds is not None
    # What comes meanwhile is as much work again for each message, and stretches the time by the same share.
    stretch = 1 / (1 - fleet.per_s / base.limit_per_s)
    return msgspec.structs.replace(
        full,
        seconds=full.seconds * stretch,
        times_s=tuple(t * stretch for t in full.times_s),
        kinds_s={kind: t * stretch for kind, t in full.kinds_s.items()},
    )


def _burst(costs: Costs, fleet: Fleet, setup: Setup, runs: int, kind: str | None) -> Burst:
    """All at once."""
    outcome = _simulate(costs, fleet, setup, min(runs, BURST_MESSAGES_MAX // len(fleet.ranks)), None, kind)
    finished = outcome.finished_s
    simulated, messages = len(finished), runs * len(fleet.ranks)
    scale = messages / simulated
    places = sorted({round(n * (simulated - 1) / POINTS) for n in range(POINTS + 1)})
    return Burst(
        messages,
        finished[-1] * scale,
        (0.0, *(finished[place] * scale for place in places)),
        (messages, *(messages - round((place + 1) * scale) for place in places)),
        _bytes(fleet, runs),
        {RANKS[rank]: max(outcome.freshness_of(rank)) * scale for rank in fleet.ranks},
    )


def _bytes(fleet: Fleet, runs: int) -> int:
    """What lies in the broker."""
    return round(runs * sum(fleet.mean_bytes(rank) for rank in fleet.ranks))


def _simulate(
    costs: Costs, fleet: Fleet, setup: Setup, count: int, per_s: float | None, kind: str | None = None
) -> Outcome:
    if len(fleet.ranks) > 1:
        count //= 2  # runs of several messages take as much longer
    load = list(arrivals(fleet, count, per_s=per_s, cores=setup.cores, seed=count, kind=kind))
    return simulate(costs, setup, load)


def middle_rate(finished_s: list[float]) -> float:
    """Catalogs a second, without the start and the end, where not everybody has something to do."""
    first, last = len(finished_s) // 10, len(finished_s) * 9 // 10
    seconds = finished_s[last] - finished_s[first]
    return (last - first) / seconds if seconds > 0 else len(finished_s) / max(finished_s[-1], 1e-9)


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
