"""What a report says of a cluster. Of engines and a database alone it says nothing."""

from __future__ import annotations

from ingest.capacity.cluster import SIZES, Part
from ingest.capacity.planned import Plan
from ingest.capacity.words import about, percent

HEAD = ("part", "used by the planned fleet", *(f"by {nodes:,} nodes" for nodes in SIZES), "full with")


def cluster_rows(plan: Plan) -> list[tuple[str, ...]]:
    if plan.cluster is None:
        return []
    nodes = plan.fleet.nodes
    return [
        (
            part.name,
            percent(part.used),
            *(_used(part, size / nodes) for size in SIZES),
            f"{about(part.nodes_max)} nodes",
        )
        for part in plan.cluster.parts
    ]


def _used(part: Part, times: float) -> str:
    used = part.used * times
    return percent(used) if used < 1 else f"{used:,.1f} times what there is"


def cluster_answer(plan: Plan) -> str:
    if plan.cluster is None:
        return ""
    machines, first, base = plan.cluster.machines, plan.cluster.parts[0], plan.base
    queue = "one broker" if machines.brokers == 1 else f"{machines.brokers} brokers with a quorum queue"
    return (
        f"Planned: {_count(base.instances, 'engine')}, {queue}, a primary, {_count(machines.standbys, 'standby')} that commits "
        f"wait for, {_count(machines.replicas, 'replica')} for queries; each machine has {base.cores} cores, "
        f"{machines.network_bytes_s * 8 / 1e9:g} Gbit/s each way and {machines.disk_bytes_s / 1e6:.0f} MB/s to disk. "
        f"What is full first: {first.name}, with {about(first.nodes_max)} nodes."
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def cluster_basis(plan: Plan) -> list[str]:
    if plan.cluster is None:
        return []
    costs = plan.cluster.costs
    return [
        f"Brokers (RabbitMQ), WAL senders and standbys: as measured when this program was made ({costs.at} on {costs.cpu}), "
        "multiplied. Network and disks are as given. Engines each learn a release's contents once, which is not counted."
    ]
