"""The short form of ``make faults``: every fault once, some at once, under traffic, and nothing is lost."""

from __future__ import annotations

import random

import pytest

from lab.brokers import RabbitMQ
from tests.faults.audit import Verdict
from tests.faults.injuries import FAULTS, DatabaseFrozenInCopy, KillAllChildren
from tests.faults.run import MESSAGES_PER_S, Run, kill_many, run, schedule
from tests.faults.world import World

SEED = 7


def told(found: Run) -> None:
    print()
    for name, (count, longest_s, limit_s) in sorted(found.worst().items()):
        print(f"{name}: {count} times, longest recovery {longest_s:.2f} s, limit {limit_s} s")
    print(found.verdict)


def check(world: World, found: Run) -> None:
    told(found)
    assert_settled(world, found.verdict)


def assert_settled(world: World, verdict: Verdict) -> None:
    assert verdict.lost == []
    assert verdict.stale_overwrites == 0
    assert verdict.duplicates_in_effect == 0
    assert verdict.still_queued == 0
    assert verdict.leftovers == []
    assert verdict.receipts == verdict.sent == verdict.settled == len(world.traffic.messages)


def test_every_fault_once_and_some_at_once() -> None:
    """Processes, database and broker are hurt one after the other and together; every message with a receipt is
    settled once in effect, and what is stored is the newest."""
    world = World(seed=SEED)
    try:
        check(world, run(world, combined=2, hold_share=0.2, seed=SEED))
    finally:
        world.close()


def test_a_broker_that_ends_and_comes_back() -> None:
    """RabbitMQ keeps its messages: stopped, killed, started again."""
    if missing := RabbitMQ.missing():
        pytest.skip(missing)
    world = World(broker="rabbitmq", seed=SEED)
    try:
        names = ["broker: stop and start", "broker: killed and started again"]
        check(world, run(world, names=names, seed=SEED))
    finally:
        world.close()


def test_a_primary_that_fails_over() -> None:
    """Its synchronous standby is promoted: the engine finds it along the list of hosts in its conninfo."""
    world = World(seed=SEED, replica=True)
    try:
        check(world, run(world, names=["PostgreSQL: primary fails over to its standby"], seed=SEED))
    finally:
        world.close()


def test_kills_without_a_pause() -> None:
    """kill -9 of whatever process, before the last one has recovered."""
    world = World(seed=SEED)
    try:
        check(world, kill_many(world, 12, SEED))
    finally:
        world.close()


def test_a_writer_that_dies_while_its_connection_is_dead() -> None:
    """Nobody tells PostgreSQL, which waits in the middle of a COPY and keeps the locks: the writer's successor ends
    that session, and the world goes on."""
    world = World(seed=SEED)
    try:
        rng = random.Random(SEED)
        with world.flow(MESSAGES_PER_S):
            world.probe()
            for fault in (DatabaseFrozenInCopy, KillAllChildren):
                fault(rng).begin(world)
            print(f"recovery {world.probe():.2f} s")
        assert_settled(world, world.finish())
        assert "session_left_behind" in world.log()
    finally:
        world.close()


def test_the_schedule_is_a_function_of_its_seed() -> None:
    """A run that found something can be run again; every fault comes as often as was asked for."""
    names = list(FAULTS)
    first = list(schedule(names, 2, 10, 1))
    assert first == list(schedule(names, 2, 10, 1))
    assert first != list(schedule(names, 2, 10, 2))
    assert all(first.count((name,)) == 2 for name in names)
    assert sum(len(turn) > 1 for turn in first) == 10
    for turn in first:
        areas = [FAULTS[name].area for name in turn]
        assert len(set(areas)) == len(areas)
