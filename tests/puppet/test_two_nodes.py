"""Two nodes, real Puppet, a real broker, the real engine: what one exports, the other one collects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.brokers import rabbitmq
from lab.servers import Postgres, embedded_broker
from tests.puppet.shapes import SHAPES, TYPES, manifest
from tests.puppet.site import has, problems, refs
from tests.puppet.world import World


def populated(stack: ExitStack, postgres: Postgres, broker: str, directory: Path) -> World:
    """Both exporters compiled and stored."""
    world = World(stack, postgres, broker, directory, manifest())
    world.compile("exporter1", keeps=True)
    world.compile("exporter2")
    assert world.settle()["stored"] == 2
    return world


@pytest.fixture(scope="module")
def world(
    puppet_installed: None, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """For tests that only ask; over RabbitMQ where it is installed."""
    with ExitStack() as stack:
        broker = stack.enter_context(rabbitmq() if has("rabbitmq-server") else embedded_broker())
        yield populated(stack, postgres, broker, tmp_path_factory.mktemp("world"))


@pytest.fixture
def own_world(puppet_installed: None, postgres: Postgres, tmp_path: Path) -> Iterator[World]:
    """For tests that change what is stored."""
    with ExitStack() as stack:
        yield populated(stack, postgres, stack.enter_context(embedded_broker()), tmp_path)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_collector_finds_exactly_what_it_asks_for(world: World, shape: str) -> None:
    """For every shape: the resources of the collecting node's catalog are those that match, no other."""
    answer = world.compile("collector", shape=shape)
    assert problems(answer) == []
    assert refs(answer, *TYPES) == SHAPES[shape][1]


def test_collected_resources_are_whole_and_overrides_hold(world: World) -> None:
    """Parameters arrive with their values and types; the collector's override is on top."""
    answer = world.compile("collector", shape="nested, with override")
    files = {r["title"]: r["parameters"] for r in answer["catalog"]["resources"] if r["type"] == "File"}
    assert files["/a"] == {"content": "a", "mode": "0644", "tag": "a", "owner": "root"}
    assert files["/b"] == {"content": "b", "mode": "0644", "tag": ["b", "x"], "owner": "root"}
    answer = world.compile("collector", shape="array contains")
    found = [r["parameters"] for r in answer["catalog"]["resources"] if r["type"] == "Service_of"]
    assert found == [{"port": 8081, "opt": "set", "loglevel": "debug", "roles": ["web", "db"]}]
    assert "Notify[full:8081]" in refs(answer, "Notify")


def test_a_dropped_export_is_collected_no_more_and_a_deactivated_nodes_exports_vanish(
    own_world: World,
) -> None:
    """What the newest catalog does not export is not collected; what a deactivated node exported neither; a new
    catalog brings the node back."""
    world = own_world
    both = ["Service_of[dropped later]", "Service_of[plain]"]
    assert refs(world.compile("collector", shape="undef"), "Service_of") == both
    world.compile("exporter1", keeps=False)
    world.settle()
    assert refs(world.compile("collector", shape="undef"), "Service_of") == ["Service_of[plain]"]
    world.deactivate("exporter1")
    world.settle()
    assert refs(world.compile("collector", shape="undef"), "Service_of") == []
    assert refs(world.compile("collector", shape="everything"), "Sshkey") == [
        "Sshkey[collector]",
        "Sshkey[exporter2]",
    ]
    world.compile("exporter1", keeps=True)
    world.settle()
    assert refs(world.compile("collector", shape="undef"), "Service_of") == both


def test_ten_compiles_of_unchanged_code_are_unchanged_to_the_engine(own_world: World) -> None:
    """Collectors included: one catalog is stored, nine are called unchanged."""
    world = own_world
    before = world.settle()
    for _ in range(10):
        world.compile("collector", shape="nested, with override")
        world.settle()
    after = world.settle()
    assert after["stored"] - before["stored"] == 1
    assert after["unchanged"] - before["unchanged"] == 9


def test_what_a_node_exports_and_collects_itself_is_there_once(world: World) -> None:
    """A node's own export comes from its own compile, never from its stored former catalog."""
    for _ in range(2):
        answer = world.compile("collector", shape="everything")
        world.settle()
        keys = [r["parameters"]["key"] for r in answer["catalog"]["resources"] if r["title"] == "collector"]
        assert keys == ["mine"]
