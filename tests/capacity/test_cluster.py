"""Which part of a cluster is full first, from costs that are known."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ingest.capacity import plan as planning
from ingest.capacity.cluster import Cluster, ClusterCosts, Load, Part, parts_of
from ingest.capacity.costs import Line
from ingest.capacity.fleet import Fleet
from ingest.capacity.plan import plan
from ingest.capacity.report import render
from ingest.capacity.world import Setup
from tests.capacity import made_up

COSTS = ClusterCosts(
    at="2026-01-01",
    cpu="two cores",
    leader=Line(0.001, 2e-9),
    follower=Line(0.0005, 1e-9),
    disk_bytes=1.5,
    sender=Line(1e-4, 1e-8),
    standby=Line(5e-4, 1e-7),
    standby_wait_s=0.002,
)
LOAD = Load(
    nodes=1000,
    messages=100,
    bodies_bytes=10e6,
    wal_bytes=1e6,
    copy_bytes=2e6,
    engines_used=0.2,
    primary_cores=0.1,
)
FLEET = Fleet(3000, 1800.0, 0.9, 0.09, 0.01, 1_250_000, 8, 0.1)
SETUP = Setup(cores=2, workers=2, writers=2, instances=3, database_apart=True)


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "LOAD_MESSAGES", 400)
        patch.setattr(planning, "LIMIT_MESSAGES", 600)
        yield


def used(cluster: Cluster, load: Load = LOAD) -> dict[str, float]:
    return {part.name: part.used for part in parts_of(load, cluster, COSTS, engines=2, cores=4)}


def test_every_message_is_written_on_every_broker() -> None:
    """A quorum queue's leader sends each body to the others as well; each disk has all of them."""
    alone = used(Cluster(network_bytes_s=100e6, disk_bytes_s=50e6))
    three = used(Cluster(brokers=3, network_bytes_s=100e6, disk_bytes_s=50e6))
    assert alone["broker's leader, network"] == pytest.approx(0.1)
    assert three["broker's leader, network"] == pytest.approx(0.3)
    assert alone["each broker's disk"] == three["each broker's disk"] == pytest.approx(0.3)
    assert three["broker's leader, processors"] == pytest.approx((100 * 0.001 + 10e6 * 2e-9) / 4)
    assert three["a broker that follows, processors"] == pytest.approx((100 * 0.0005 + 10e6 * 1e-9) / 4)
    assert "a broker that follows, processors" not in alone


def test_standbys_and_replicas_get_all_of_the_wal() -> None:
    """The primary sends it to each; each replays it in one process. Queries are the replicas', or the primary's."""
    both = used(Cluster(standbys=1, replicas=2, fleet_queries_per_s=5, network_bytes_s=100e6))
    assert both["primary's processors"] == pytest.approx((0.1 + 3 * (100 * 1e-4 + 1e-8 * 1e6)) / 4)
    assert both["primary's network"] == pytest.approx(0.03)
    assert both["a standby's replay (one process)"] == pytest.approx(0.15)
    alone = used(Cluster(fleet_queries_per_s=5))
    assert "a standby's replay (one process)" not in alone
    assert alone["queries to the whole fleet"] == pytest.approx(2 * both["queries to the whole fleet"])


def test_the_fullest_part_comes_first() -> None:
    """With the number of nodes at which it is full."""
    parts = parts_of(LOAD, Cluster(network_bytes_s=20e6), COSTS, engines=2, cores=4)
    assert parts[0] == Part("broker's leader, network", 0.5, 2000)
    assert [part.used for part in parts] == sorted((part.used for part in parts), reverse=True)


def test_a_report_of_a_cluster_has_its_parts() -> None:
    """In each form; without one there is no word of it."""
    made = plan(
        made_up.calibration(), FLEET, SETUP, target_s=60.0, outage_s=3600.0, cluster=Cluster(brokers=3, standbys=1)
    )  # fmt: skip
    assert made.cluster is not None
    first = made.cluster.parts[0].name
    for format_ in ("markdown", "html"):
        text = render(made, format_).replace("&#39;", "'")
        assert "The cluster's parts" in text
        assert f"What is full first: {first}" in text
        assert "3 engines, 3 brokers with a quorum queue, a primary, 1 standby that commits wait for" in text
    alone = plan(made_up.calibration(), FLEET, SETUP, target_s=60.0, outage_s=3600.0)
    assert "cluster" not in render(alone, "markdown")
    assert alone.base.p99_s is not None
    assert made.base.p99_s is not None
    assert made.base.p99_s >= alone.base.p99_s  # commits wait for the standby
