"""Of many bad messages the newest of each node are kept, and a few of what names none; every delivery is counted once."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.core.delivery.thinning import row_digest, thin
from ingest.core.delivery.work import Quarantine
from ingest.core.occasional import KEYS_MAX, Occasional
from lab.store_model import START


def bad(
    delivery: int,
    *,
    certname: str | None = None,
    reason: str = "unreadable",
    producer: str | None = None,
    kind: str = "",
    body: bytes = b"",
) -> Quarantine:
    body = body or b"%d" % delivery
    return Quarantine(
        delivery, reason, "", certname, {}, START, 1, 0, len(body), len(body), zlib.crc32(body), producer, kind
    )  # fmt: skip


messages = st.lists(
    st.builds(
        lambda certname, reason, producer, kind, body: bad(
            0, certname=certname, reason=reason, producer=producer, kind=kind, body=body
        ),
        st.sampled_from([None, "a", "b"]),
        st.sampled_from(["unreadable", "invalid", "too_large"]),
        st.sampled_from([None, "p", "q"]),
        st.sampled_from(["", "replace catalog", "replace facts"]),
        st.sampled_from([b"x", b"y", b"z"]),
    ),
    max_size=30,
)  # fmt: skip


@given(messages, st.integers(1, 4))
def test_every_delivery_is_counted_once_and_the_newest_is_kept(
    batch: list[Quarantine], unnamed_max: int
) -> None:
    """Whatever comes together: no group is larger than it may be, and its last one is kept."""
    for at, message in enumerate(batch):
        message = bad(at, certname=message.certname, reason=message.reason, producer=message.producer,
                      kind=message.kind, body=b"xyz"[at % 3 : at % 3 + 1])  # fmt: skip
        batch[at] = message
    kept = thin(batch, unnamed_max)
    assert sorted(delivery for one in kept for delivery in one.deliveries) == list(range(len(batch)))
    assert all(one.message.delivery == max(one.deliveries) for one in kept)
    assert all(0 <= one.thinned < len(one.deliveries) for one in kept)
    named = [one.message for one in kept if one.message.certname]
    assert len({(m.reason, m.kind, m.certname) for m in named}) == len(named)
    unnamed = [one.message for one in kept if not one.message.certname]
    for message in unnamed:
        alike = [m for m in unnamed if (m.reason, m.producer) == (message.reason, message.producer)]
        assert len(alike) <= unnamed_max


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ({"certname": "n"}, {"certname": "n", "body": b"other"}, True),
        ({"certname": "n"}, {"certname": "n", "producer": "p"}, True),
        ({"certname": "n"}, {"certname": "m"}, False),
        ({"certname": "n"}, {"certname": "n", "reason": "invalid"}, False),
        ({"certname": "n", "kind": "replace catalog"}, {"certname": "n", "kind": "replace facts"}, False),
        ({"body": b"x"}, {"body": b"x"}, True),
        ({"body": b"x"}, {"body": b"y"}, False),
        ({"body": b"x"}, {"body": b"x", "producer": "p"}, False),
    ],
)
def test_what_is_one_row(one: dict[str, str], other: dict[str, str], is_same: bool) -> None:
    """A node's messages for one reason; the same message of what names no node."""
    digests = {
        row_digest(message, zlib.crc32(b"").to_bytes(4, "big") + bytes([message.body_crc32 % 251]))
        for message in (bad(1, **{"body": b"1"} | one), bad(2, **{"body": b"1"} | other))  # type: ignore[arg-type]
    }
    assert (len(digests) == 1) is is_same


def test_a_name_never_looks_like_another_group() -> None:
    """Nor do the parts of a key run into each other."""
    pairs = [bad(1, reason="a", kind="b", certname="c"), bad(1, reason="a", kind="b\0c", certname="c"),
             bad(1, reason="a\0b", kind="", certname="c")]  # fmt: skip
    assert len({row_digest(message, b"") for message in pairs}) == 3


def test_a_thousand_a_minute_are_told_a_few_times() -> None:
    """And the next one says how many were not."""
    told = Occasional(3, 60.0)
    assert [told.speak("a", now) for now in range(6)] == [0, 0, 0, None, None, None]
    assert told.speak("b", 6) == 0
    assert told.speak("a", 60.0) == 3
    assert told.speak("a", 61.0) == 0


def test_ever_new_keys_take_no_memory() -> None:
    told = Occasional(3, 60.0)
    for key in range(5 * KEYS_MAX):
        assert told.speak(key, 0.0) == 0
    assert len(told._seen) <= KEYS_MAX


def test_what_nothing_stays_of_is_counted_once() -> None:
    """Different bodies of a node, less the one that is kept; the same one again is nothing that is lost."""
    same = [bad(n, certname="n", body=b"same") for n in range(3)]
    (kept,) = thin(same, 1)
    assert (kept.deliveries, kept.thinned) == ((0, 1, 2), 0)
    (kept,) = thin([*same, bad(3, certname="n", body=b"a"), bad(4, certname="n", body=b"b")], 1)
    assert (kept.message.delivery, kept.thinned) == (4, 2)


def test_what_names_nobody_is_kept_by_who_sent_it() -> None:
    """So many of each producer, and one with a producer is not one without."""
    batch = [bad(n, producer=producer) for n, producer in enumerate(["p", None, "q", "p", None, "q"])]
    assert sorted(one.message.delivery for one in thin(batch, 1)) == [3, 4, 5]
