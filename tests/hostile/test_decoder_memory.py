"""What a sender makes large is not remembered for ever: a decoder's caches are bounded in bytes, a message's share of memory is
its own, and a process that has outgrown its bound ends between two messages."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from ingest.config.settings import Config
from ingest.core.catalog import storable, tags
from ingest.core.catalog.decoding import Decoding
from ingest.core.delivery.work import Descriptor, Forwarded, Quarantine, Work
from ingest.core.metrics import Metric
from ingest.engine.decoder import MEMORY_LOOKED_AT_BYTES, Decoder
from ingest.engine.process import Ended
from ingest.engine.supervisor import Supervisor
from ingest.errors import Rejected
from ingest.store.connection import Connection
from lab.decoding import work_of
from lab.engine import Start, publish
from lab.store_model import START, expected, resource, stored, wire_body
from tests.faults.test_wiring import CONFIG, Neighbourhood

MIB = 1024 * 1024
CACHE_BYTES_MAX = MIB
NAMES_BYTES_MAX = (
    tags.TAGS_BYTES_MAX + tags.TAG_LISTS_BYTES_MAX + storable.TYPES_BYTES_MAX + storable.POSITIONS_BYTES_MAX
)


def native(resources: list[dict[str, Any]]) -> bytes:
    document = {"name": "n", "version": 1, "resources": resources, "edges": []}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def thing(number: int, **members: Any) -> dict[str, Any]:
    return {"type": "T", "title": f"/{number}", "parameters": {}} | members


def text(number: int, size: int) -> str:
    return f"{number:08}" + "x" * (size - 8)


SIZE = 400_000
# What is in one message of each kind; the number makes it another one each time.
LARGE: dict[str, Callable[[int], list[dict[str, Any]]]] = {
    "tags": lambda n: [thing(n, tags=[text(n, SIZE)])],
    "many tags": lambda n: [thing(n, tags=[f"t{n}-{m}" for m in range(6_000)])],
    "types": lambda n: [thing(n, type="T" + text(n, SIZE))],
    "files": lambda n: [thing(n, file="/" + text(n, SIZE), line=n)],
    "titles": lambda n: [thing(n, title=text(n, SIZE))],
    "titles of wide letters": lambda n: [thing(n, title=text(n, SIZE // 4) + "\U0001f600")],
    "relations": lambda n: [thing(n, exported=True, parameters={"before": ["T[a]"] * 6_000})],
    "aliases": lambda n: [thing(n, parameters={"alias": [f"a{m}" for m in range(6_000)]})],
    "parameters": lambda n: [thing(n, parameters={"content": text(n, SIZE)})],
    "kinds": lambda n: [thing(n, kind=text(n, SIZE))],
    "unknown members": lambda n: [thing(n, **{text(n, SIZE): text(n, SIZE)})],
    "middling titles": lambda n: [thing(n, title=text(n * 1000 + m, 3000) + "\U0001f600") for m in range(60)],
    "middling tags": lambda n: [thing(n * 1000 + m, tags=[text(n * 1000 + m, 3000)]) for m in range(60)],
    "middling relations": lambda n: [
        thing(n * 1000 + m, exported=True, parameters={"before": ["T[a]"] * 150}) for m in range(12)
    ],
    "tiny resources": lambda n: [{"type": "", "title": f"{n * 1_000 + m}"} for m in range(1_000)],
}  # fmt: skip


@pytest.fixture
def held() -> Iterator[Callable[[], int]]:
    """How many bytes Python holds more than before."""
    for cache in (tags._good_tags, tags._tag_lists, storable._type_fields, storable._positions):
        cache.clear()  # type: ignore[attr-defined]
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()

    def now() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before

    yield now
    tracemalloc.stop()


def take(one: Decoding, body: bytes) -> None:
    try:
        work_of(one, Descriptor(1, 1, 0, len(body), len(body), START, {}), body, {})
    except Rejected:
        pass


@pytest.mark.parametrize("kind", LARGE)
def test_large_names_are_not_remembered(kind: str, held: Callable[[], int]) -> None:
    """Of ten times as much as the caches may take, they take what they may."""
    one = Decoding(CACHE_BYTES_MAX)
    for number in range(30):
        take(one, native(LARGE[kind](number)))
    most = 3 * CACHE_BYTES_MAX // 2
    if kind.startswith(("middling", "many")):
        most += NAMES_BYTES_MAX
    assert held() < most


def test_ever_new_small_names_are_forgotten(held: Callable[[], int]) -> None:
    """Tags, types and files of ordinary length, more of them than a fleet has: their tables stay as large as they say."""
    one = Decoding(CACHE_BYTES_MAX)
    for number in range(0, 15_000, 500):
        take(
            one,
            native(
                [
                    thing(
                        n,
                        type=f"Type{n}",
                        file=f"/etc/manifests/{n}.pp",
                        line=n,
                        tags=[f"tag{n}", "a", "b", "c"],
                    )
                    for n in range(number, number + 500)
                ]
            ),
        )
    assert held() < 3 * CACHE_BYTES_MAX // 2 + NAMES_BYTES_MAX


PROGRAM = """
import sys
from ingest.engine.memory import Memory
MIB = 1024 * 1024
memory = Memory(64 * MIB, 32 * MIB)
def fits(mib):
    try:
        bytearray(mib * MIB)
    except MemoryError:
        return False
    return True
assert fits(50) and not fits(80), "a message's share"
assert not memory.gives_more(), "there was all of it"
kept = [b"x" * (MIB // 8) for _ in range(8 * 40)]
assert not fits(50), "what is kept takes of it"
assert memory.gives_more() and fits(50) and not fits(80), "until it is renewed"
assert memory.is_outgrown() and memory.kept_bytes > 32 * MIB
del kept[::2]
assert not memory.is_outgrown(), "what is free is given back"
kept += [b"x" * (MIB // 8) for _ in range(8 * 40)]
memory.renew()
assert fits(50) and not fits(80)
print("done")
"""


def test_a_messages_share_of_memory_is_its_own() -> None:
    """Whatever a process keeps by then; and what it keeps is measured when that which is free was given back."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.stdout == "done\n", done.stderr


class Little:
    """Memory that gives a message less than its share, so often as is said, and then all of it."""

    def __init__(self, *, more: bool = False, outgrown: bool = False) -> None:
        self.more, self.outgrown = more, outgrown
        self.kept_bytes = 7
        self.renewed = 0

    def gives_more(self) -> bool:
        return self.more

    def is_outgrown(self) -> bool:
        return self.outgrown

    def renew(self) -> None:
        self.renewed += 1


def decoder_with(memory: Little) -> tuple[Decoder, Neighbourhood]:
    around = Neighbourhood(CONFIG)
    given: Any = memory
    return Decoder(CONFIG, around.channels, around.row, "decoder-0", given), around


@pytest.mark.parametrize(
    ("more", "failures", "is_decoded"), [(True, 1, True), (True, 2, False), (False, 1, False)]
)
def test_a_message_that_found_less_than_its_share_is_tried_again(
    more: bool, failures: int, is_decoded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same process, once it has all of it; only what needs more than that goes to quarantine."""
    decoder, _ = decoder_with(Little(more=more))
    whole = decoder.decoding.decode
    left = [MemoryError] * failures

    def decode(*given: Any) -> Any:
        if left:
            raise left.pop()
        return whole(*given)

    monkeypatch.setattr(decoder.decoding, "decode", decode)
    body = wire_body("n.example.com", 1, [resource("/a")])
    work = decoder._decode(Descriptor(1, 1, 0, len(body), len(body), START, {}), memoryview(body))
    assert isinstance(work, Quarantine) != is_decoded
    if isinstance(work, Quarantine):
        assert work.reason == "too_much_memory"


def test_a_decoder_that_has_outgrown_its_bound_ends_between_two_messages() -> None:
    """What it has decoded is with the writer, nothing is in its hands, and it says why; the rest waits for its successor."""
    config = msgspec.structs.replace(CONFIG)
    memory = Little(outgrown=True)
    decoder, around = decoder_with(memory)
    outbox, to_receiver = around.inbox_from("receiver"), around.outbox_to("receiver")
    to_writer = around.outbox_to("writer-0")
    bodies = [wire_body("n.example.com", n, [resource(f"/{n}")]) for n in range(2)]
    at, descriptors = 0, []
    for number, body in enumerate(bodies, 1):
        around.channels.arenas[1].view(at, len(body))[:] = body
        descriptors.append(Descriptor(number, 1, at, len(body), len(body), START, {}))
        at += len(body)
    outbox.send(descriptors)
    decoder._unseen_bytes = MEMORY_LOOKED_AT_BYTES
    with pytest.raises(Ended):
        decoder._receive("receiver")
    passed = msgspec.msgpack.decode(to_receiver.recv_bytes(), type=list[Forwarded])
    works = msgspec.msgpack.decode(to_writer.recv_bytes(), type=list[Work])
    assert [one.delivery for one in (*passed, *works)] == [1, 1]
    assert not to_receiver.poll()
    assert decoder._in_flight.held("decoder-0") is None
    (report,) = around.control.reports()
    assert (report.word, report.detail) == ("retiring", "it keeps 7 bytes")
    assert config == CONFIG


def test_what_small_messages_leave_is_not_looked_at_each_time() -> None:
    """Only after so many bytes of them; then the next message has its share anew."""
    memory = Little()
    decoder, _ = decoder_with(memory)
    for unseen, renewed in ((MEMORY_LOOKED_AT_BYTES - 1, 0), (MEMORY_LOOKED_AT_BYTES, 1), (0, 1)):
        decoder._unseen_bytes = unseen
        decoder._look_at_memory()
        assert memory.renewed == renewed


@pytest.mark.parametrize(
    ("word", "status", "died"), [("retiring", 0, False), ("retiring", 1, True), ("ready", 0, True)]
)
def test_who_ends_in_order_is_not_said_to_have_died(
    word: str, status: int, died: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is replaced like any other, and neither counted nor warned about; unless it did not come to its end as it said."""
    config = Config(workers=1, writers=1)
    supervisor = Supervisor(config, lambda: config)
    child = supervisor.children["decoder-0"]
    events: list[str] = []
    monkeypatch.setattr(supervisor, "log", Log(events))
    monkeypatch.setattr(supervisor, "_spawn", lambda child: events.append("spawned"))
    for step in ("_hand_over_memory", "_connect", "_order"):
        monkeypatch.setattr(supervisor, step, lambda *_: None)
    with subprocess.Popen([sys.executable, "-c", f"raise SystemExit({status})"]) as process:
        child.process = process
        child.pidfd = os.pidfd_open(process.pid)
        supervisor._selector.register(child.pidfd, 1)
        child.started_s = -1e9
        if word == "retiring":
            child.retires_because = "it keeps 7 bytes"
        supervisor._ended(child)
    assert events == (["warning child_died"] if died else ["info child_retired"]) + [
        "info restarting",
        "spawned",
    ]
    assert supervisor.metrics.value(supervisor.names.index("supervisor"), Metric.RESTARTS) == died


class Log:
    def __init__(self, events: list[str]) -> None:
        self._events = events

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda event, **_: self._events.append(f"{level} {event}")


def test_after_large_names_every_good_catalog_is_stored(
    start: Start, broker: str, connection: Connection
) -> None:
    """A hundred megabytes of them, most in stale catalogs, with little memory: nothing is refused for want of it, and nobody
    dies."""
    engine = start(
        "--workers", "1", "--decode-memory-bytes-max", "64MiB", "--window-bytes-max", "64MiB", "--body-bytes-max", "32MiB"
    )  # fmt: skip
    good = [wire_body(f"good{n}.example.com", 9, [resource(f"/{n}")]) for n in range(3)]
    count = 0
    for name, members in (
        ("tags", lambda n: {"tags": [text(n, MIB)]}),
        ("file", lambda n: {"file": text(n, MIB)}),
    ):  # fmt: skip
        for round_ in range(5):
            resources = [resource(f"/{name}/{round_}/{n}", **members(round_ * 1000 + n)) for n in range(10)]
            publish(broker, wire_body("bad.example.com", 8 - round_, resources))
            count += 1
        publish(broker, good[count // 5 - 1])
        count += 1
    publish(broker, good[2])
    settled = engine.wait_settled(count + 1)
    assert settled["quarantined"] == 0
    for number, body in enumerate(good):
        assert stored(connection, f"good{number}.example.com") == expected(body)
    assert not [line for line in engine.lines() if line.get("event") in ("child_died", "child_retired")]
