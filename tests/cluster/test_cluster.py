"""The short form of ``make test-cluster``: one failover of the brokers and one of the database, in one cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.cluster import Cluster, missing
from tests.cluster.faults import BY_NAME
from tests.cluster.run import run

ENGINES = 2  # each is five processes, and the clusters are ten more


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    if reason := missing():
        pytest.skip(reason)
    started = Cluster()
    try:
        started.start()
        yield started
    finally:
        started.remove()


def test_a_failover_of_brokers_and_one_of_the_database_lose_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """The leader of the quorum queue is killed, then the primary with its Patroni: each message with a receipt is stored or
    superseded by a newer one, no node goes back in time, nothing is in quarantine, no engine's process was restarted."""
    for name in ("leader broker killed", "PostgreSQL and Patroni of the primary killed"):
        (figures,) = run(cluster, [BY_NAME[name]], tmp_path, ENGINES)
        assert figures.messages > 20, figures
        assert figures.own_recovery_s > 0 or "broker" in name, "the primary was killed, and no client noticed"
        assert figures.settled_after_s is not None, figures
        assert figures.is_whole, figures
