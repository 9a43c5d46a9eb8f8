"""Whatever the broker or the spool does, the agent gets its catalog, and nothing is lost in silence."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.servers import Postgres, embedded_broker
from tests.puppet import temper
from tests.puppet.site import Site, messages, problems, refs
from tests.puppet.world import World

CODE = "notify { $trusted['certname']: }\n@@notify { \"x ${trusted['certname']}\": }\n"
TEMPERS = [
    None,
    temper.mute,
    temper.half_open,
    temper.resets,
    temper.no_receipts,
    temper.refuses,
    temper.speaks_http,
]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.mark.parametrize("behaviour", TEMPERS, ids=lambda b: "refused" if b is None else b.__name__)
def test_the_agent_gets_its_catalog_and_the_message_stays(
    site: Site, stack: ExitStack, behaviour: temper.Behaviour | None
) -> None:
    """Each compile succeeds; afterwards all catalogs lie in the spool, with one warning about the broker."""
    site.code(CODE)
    site.configure(
        broker=stack.enter_context(temper.broker_that(behaviour)),
        receipt_timeout_s="300ms", connect_timeout_s="300ms", flush_timeout_s="100ms",
    )  # fmt: skip
    site.start()
    logged = []
    for number in range(5):
        answer = site.compile(f"node{number}")
        assert refs(answer, "Notify") == [f"Notify[node{number}]"]
        logged += problems(answer)
    site.flush()
    logged += problems(site.ask(do="counters"))
    assert len(messages(site.spool)) == 5
    assert all("messages wait in the spool" in text for text in logged)
    assert len(logged) <= 1


def test_what_waited_is_delivered_when_the_broker_is_back(
    puppet_installed: None, postgres: Postgres, stack: ExitStack, tmp_path: Path
) -> None:
    """Catalogs of an outage, some of them compiled by a process that has ended since, all get stored."""
    world = World(stack, postgres, stack.enter_context(embedded_broker()), tmp_path, CODE)
    good = world.broker
    with temper.broker_that(None) as away:
        world.site.configure(broker=away, database=world.database, flush_timeout_s="0")
        world.site.ask(do="reset")
        for number in range(10):
            world.compile(f"node{number}")
        world.site.stop()
    assert len(messages(world.site.spool)) == 10
    world.site.configure(broker=good, database=world.database)
    world.site.start()
    world.compile("node10")
    world.engine.wait_settled(11)
    assert messages(world.site.spool) == []


def test_a_full_spool_loses_the_oldest_and_names_it(site: Site, stack: ExitStack) -> None:
    """The limit holds; each loss is logged with its certname and counted."""
    site.code(CODE)
    site.configure(
        broker=stack.enter_context(temper.broker_that(None)),
        spool_memory_bytes_max=0, spool_disk_bytes_max=6000,
    )  # fmt: skip
    site.start()
    logged = [text for number in range(8) for text in problems(site.compile(f"node{number}"))]
    lost = [text for text in logged if "lost the catalog of" in text]
    assert lost
    assert "node0" in lost[0]
    assert site.ask(do="counters")["counters"]["lost"] == len(lost)
    assert len(messages(site.spool)) == 8 - len(lost)
    assert sum(file.stat().st_size for file in site.spool.glob("*.msg")) <= 6000


@pytest.mark.parametrize("memory", ["1m", "0"])
def test_a_spool_that_cannot_be_written_fails_no_compile(site: Site, stack: ExitStack, memory: str) -> None:
    """A full disk, or no directory: memory keeps what it can, the rest is lost with a word."""
    blocked = site.directory / "file"
    blocked.write_text("no directory")
    site.code(CODE)
    site.configure(
        broker=stack.enter_context(temper.broker_that(None)), spool_dir=blocked / "spool",
        spool_memory_bytes_max=memory, flush_timeout_s="0",
    )  # fmt: skip
    site.start()
    for number in range(3):
        assert refs(site.compile(f"node{number}"), "Notify") == [f"Notify[node{number}]"]
    lost = site.ask(do="counters")["counters"]["lost"]
    assert lost == (3 if memory == "0" else 0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 KB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k,mode=0700", "tmpfs", directory]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system of its own needs root, and the right to mount")
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


def test_a_full_disk_fails_no_compile_and_leaves_no_half_message(
    site: Site, stack: ExitStack, small_disk: Path
) -> None:
    """What fits is on disk and whole; each one that does not is an error with its certname, and counted."""
    site.code(CODE)
    site.configure(
        broker=stack.enter_context(temper.broker_that(None)), spool_dir=small_disk / "spool",
        spool_memory_bytes_max=0, flush_timeout_s=0,
    )  # fmt: skip
    site.start()
    lost = []
    for number in range(20):
        answer = site.compile(f"node{number}")
        assert refs(answer, "Notify") == [f"Notify[node{number}]"]
        lost += [text for text in problems(answer) if f"lost the catalog of node{number}:" in text]
    assert lost
    assert all("No space left" in text for text in lost)
    assert site.ask(do="counters")["counters"]["lost"] == len(lost)
    site.flush()  # what the sender had in its hands lies there again
    kept = [json.loads(body)["name"] for body in messages(small_disk / "spool")]
    assert len(kept) == 20 - len(lost) > 0
    assert list((small_disk / "spool").glob("*.tmp")) == []


@pytest.mark.parametrize(
    "setting", ["queue_source = carrier-pigeon://x", "queue_source =", "spool_dir = /proc/none", "receipt_timeout_s = soon"]
)  # fmt: skip
def test_a_wrong_setting_is_logged_by_name_and_fails_no_compile(site: Site, setting: str) -> None:
    """The agent gets its catalog; the log names the setting or its consequence."""
    site.code(CODE)
    (site.confdir / "catalog_queue.conf").write_text(setting + "\nspool_memory_bytes_max = 0\n")
    site.start()
    answer = site.compile("node")
    assert refs(answer, "Notify") == ["Notify[node]"]
    assert problems(answer)


def test_async_storeconfigs_false_publishes_nothing(site: Site) -> None:
    """The old switch: no message, and a warning that says so."""
    site.code(CODE)
    site.configure(async_storeconfigs="false")
    site.start()
    assert any("async_storeconfigs" in text for text in problems(site.compile("node")))
    site.flush()
    assert messages(site.spool) == []
