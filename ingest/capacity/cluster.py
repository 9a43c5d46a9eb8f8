"""A cluster's parts beside the engines: what runs take of brokers, databases and the network between, and which is full first.

Engines and the primary's processors are simulated (simulation.py); what is here grows in proportion to the fleet.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec

from ingest.capacity.costs import Line

BUILT_IN = Path(__file__).parent / "data" / "cluster.json"
SIZES = (10_000, 100_000, 1_000_000)  # for which the report says what is full
QUERY_NODE_S = 6e-6  # of a query that goes through all nodes, for each: bench.scale collects an exported type of 3000 in 17.9 ms
NODES_MAX = 10**12  # nothing is used


class ClusterCosts(msgspec.Struct, frozen=True):
    """Measured by ``bench.cluster_costs``."""

    at: str
    cpu: str  # of the machine on which it was measured
    leader: Line  # CPU of RabbitMQ's node that leads a quorum queue, for a message that goes in and out again
    follower: Line  # of each other node
    disk_bytes: float  # that each node writes for a byte of a body
    sender: (
        Line  # CPU of the primary that sends WAL: for a message with a commit of its own, and a byte of WAL
    )
    standby: Line  # the same of a standby that replays it
    standby_wait_s: float  # by so much a commit that waits for a standby takes longer


class Cluster(NamedTuple):
    """What stands beside the engines, on machines of the same kind."""

    brokers: int = 1  # members of a quorum queue, each of which has all messages
    standbys: int = 0  # that commits wait for
    replicas: int = 0  # that queries are asked of
    fleet_queries_per_s: float = 0.0  # that go through what all nodes have, as a collector does
    network_bytes_s: float = 125e6  # each way, of each machine: 1 Gbit/s
    disk_bytes_s: float = 200e6  # that each machine writes


class Part(msgspec.Struct, frozen=True):
    """One thing that can be full."""

    name: str
    used: float  # of what it has, by the planned fleet: 1 is full
    nodes_max: int  # with which it is full


class Load(NamedTuple):
    """What the fleet does, a second."""

    nodes: int
    messages: float
    bodies_bytes: float
    wal_bytes: float
    copy_bytes: float
    engines_used: float  # of all engines at their limit
    primary_cores: float


def parts_of(
    load: Load, cluster: Cluster, costs: ClusterCosts, *, engines: int, cores: int
) -> tuple[Part, ...]:
    """The fullest first."""
    copies = cluster.standbys + cluster.replicas
    followers = cluster.brokers - 1
    found = {
        "engines": load.engines_used,
        "engines' network": load.bodies_bytes / engines / cluster.network_bytes_s,
        "broker's leader, processors": _cpu_s(costs.leader, load.messages, load.bodies_bytes) / cores,
        # To each follower, and to an engine.
        "broker's leader, network": load.bodies_bytes * max(1, followers + 1) / cluster.network_bytes_s,
        "each broker's disk": load.bodies_bytes * costs.disk_bytes / cluster.disk_bytes_s,
        "primary's processors": (
            load.primary_cores + copies * _cpu_s(costs.sender, load.messages, load.wal_bytes)
        )
        / cores,
        "primary's network": max(load.copy_bytes, load.wal_bytes * copies) / cluster.network_bytes_s,
        # What the WAL says is written to the tables once more.
        "primary's disk": 2 * load.wal_bytes / cluster.disk_bytes_s,
    }
    if followers:
        found["a broker that follows, processors"] = (
            _cpu_s(costs.follower, load.messages, load.bodies_bytes) / cores
        )
    if copies:
        found["a standby's replay (one process)"] = _cpu_s(costs.standby, load.messages, load.wal_bytes)
    if cluster.fleet_queries_per_s:
        machines = cluster.replicas or 1
        found["queries to the whole fleet"] = (
            cluster.fleet_queries_per_s * load.nodes * QUERY_NODE_S / (machines * cores)
        )
    parts = [
        Part(name, used, round(load.nodes / used) if used else NODES_MAX) for name, used in found.items()
    ]
    return tuple(sorted(parts, key=lambda part: -part.used))


def _cpu_s(line: Line, messages: float, size: float) -> float:
    return line.each_s * messages + line.byte_s * size


@cache
def built_in() -> ClusterCosts:
    return msgspec.json.decode(BUILT_IN.read_bytes(), type=ClusterCosts)
