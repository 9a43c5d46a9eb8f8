"""What a decoder remembers: counted by what it takes, whatever a sender makes large, and made once for all who have it."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest

from ingest.core.catalog.baseline import Delta, make_baseline
from ingest.core.catalog.baselines import Baselines
from ingest.core.catalog.cache import CachedResource, LargeContent, bytes_of
from ingest.core.catalog.catalog_sets import SetCache, make_edge_set
from ingest.core.catalog.decoding import Decoding, open_decoder
from ingest.core.catalog.model import Ref
from ingest.core.catalog.resource_cache import (
    KEPT_CONTENT_BYTES_MAX,
    ResourceCache,
    content_of,
    sort_key_of,
)
from ingest.core.delivery.decoding import DecoderSettings
from ingest.core.delivery.routing import lane_of
from ingest.core.delivery.work import Content
from tests.core.test_baseline import baseline_of, cached, put
from tests.core.test_decoding import CERTNAMES, LANES, Writers, body, compact, decode, full

LARGE = 100_000
PLAIN: dict[str, Any] = {"type": "T", "title": "t", "parameters": {"p": "v"}}
# What a sender can make large, and how many bytes at least are kept of it beside the JSON.
PARTS: dict[str, tuple[dict[str, Any], int]] = {
    "title": ({"title": "🙂" * LARGE}, sys.getsizeof("🙂" * LARGE)),
    "type": ({"type": "T" + "y" * LARGE}, LARGE),
    "tags": ({"tags": ["t" * LARGE]}, LARGE),
    "file": ({"file": "/" + "f" * LARGE}, LARGE),
    "relation": ({"parameters": {"require": f"T[{'r' * LARGE}]"}}, LARGE),
    "relations": ({"parameters": {"require": [f"T[{n}]" for n in range(1000)]}}, 1000 * 300),
    "alias": ({"parameters": {"alias": "a" * LARGE}}, LARGE),
    "aliases": ({"parameters": {"alias": [f"a{n}" for n in range(1000)]}}, 1000 * 60),
}  # fmt: skip


def made(members: dict[str, Any]) -> CachedResource:
    (one,) = find(ResourceCache(1 << 30, lambda: False), members)
    return one


def counted(members: dict[str, Any]) -> int:
    """Beside the JSON, which is the cache's key, and the content."""
    one = made(members)
    return bytes_of(one, content_of(one), is_content_kept=False)


@pytest.mark.parametrize("part", PARTS)
def test_what_a_sender_makes_large_is_counted(part: str) -> None:
    """By what it takes and not by ten times that: else memory has no bound, or nothing is remembered."""
    members, bytes_min = PARTS[part]
    more = counted(PLAIN | members) - counted(PLAIN)
    assert bytes_min <= more + 1000 <= 10 * bytes_min


def test_what_is_large_in_several_ways_counts_for_each() -> None:
    """A resource of ordinary names is as large as any other one of those."""
    assert counted(PLAIN) == counted(PLAIN | {"title": "a longer title", "tags": ["one", "two"]})
    parameters = {
        name: value for part in PARTS.values() for name, value in part[0].get("parameters", {}).items()
    }
    members = {name: value for part in PARTS.values() for name, value in part[0].items()}
    together = counted(PLAIN | members | {"parameters": parameters})
    alone = [
        counted(PLAIN | members) for members, _ in (PARTS[name] for name in ("title", "type", "tags", "file"))
    ]
    says = [counted(PLAIN | PARTS[name][0]) for name in ("relations", "aliases")]
    assert together >= sum(alone) + sum(says) - 6 * counted(PLAIN)


def test_a_content_counts_where_it_is_kept() -> None:
    """All of it, and nothing where it is made again."""
    one = made(PLAIN | {"parameters": {"p": "v" * 1000}})
    content = content_of(one)
    kept = bytes_of(one, content, is_content_kept=True) - bytes_of(one, content, is_content_kept=False)
    assert kept == len(content.head) + len(content.tail) > 1000


def resources(count: int, *, file: str = "/m.pp") -> list[CachedResource]:
    return [
        made({"type": "T", "title": f"{n:06}", "file": file, "line": n, "parameters": {}})
        for n in range(count)
    ]


def delta_of(found: list[CachedResource]) -> Delta:
    return Delta(make_baseline(b"", found, thin=False), {})


EDGES = compact([{"source": "T[000000]", "target": f"T[{n:06}]"} for n in range(1, 50)])  # type: ignore[arg-type]


def test_sets_are_made_once() -> None:
    """For all who have the same edges, or the same positions; others have their own."""
    sets = SetCache(1 << 20, thin=False)
    some = delta_of(resources(50))
    edges, positions = sets.edges(EDGES, some), sets.positions(some)
    again = delta_of(resources(50))
    assert sets.edges(EDGES, again) is edges
    assert sets.positions(again) is positions
    others = delta_of(resources(50, file="/n.pp"))
    assert sets.edges(EDGES, others) is edges
    assert sets.positions(others).digest != positions.digest
    assert sets.edges(b"[]", some).digest != edges.digest


THREE = [{"type": "T", "title": title, "parameters": {}} for title in "abc"]
SAYS_OTHERWISE: dict[str, list[list[dict[str, Any]]]] = {
    "a relation": [[{"parameters": {"require": f"T[{title}]"}}, {}, {}] for title in "bc"],
    "another relation": [
        [{"parameters": {name: "T[b]"}}, {}, {}] for name in ("before", "require", "notify")
    ],
    "one relation more": [
        [{"parameters": {"require": refs}}, {}, {}] for refs in (["T[b]"], ["T[b]", "T[c]"])
    ],
    "an alias": [
        [{"parameters": {"require": "T[x]"}}, *others]
        for others in (({"parameters": {"alias": "x"}}, {}), ({}, {"parameters": {"alias": "x"}}))
    ],
    "exported": [
        [{"parameters": {"require": "T[b]"}, "exported": is_exported}, {}, {}]
        for is_exported in (False, True)
    ],
    "not collected": [[{"exported": True, "virtual": is_virtual}, {}, {}] for is_virtual in (False, True)],
}


@pytest.mark.parametrize("case", SAYS_OTHERWISE)
@pytest.mark.parametrize("turned", [False, True])
def test_what_a_resource_says_of_others_decides_about_edges(case: str, turned: bool) -> None:
    """A catalog of the same resources by name, which say otherwise, has the edges that it has in a decoder that never met the
    first."""
    bodies = [
        body("n", [one | members for one, members in zip(THREE, said, strict=True)], "native")
        for said in SAYS_OTHERWISE[case]
    ]
    warm = Decoding(1 << 22)
    for raw in reversed(bodies) if turned else bodies:
        assert decode(warm, raw).edge_set == full(Decoding(1 << 22), raw).edge_set  # type: ignore[union-attr]


def test_edges_that_were_guessed_are_made_again() -> None:
    """They depend on parameters, which are not part of what they are found by."""
    said = made({"type": "File", "title": "/x", "parameters": {"require": "Thing[bob]"}})
    thing = made({"type": "Thing", "title": "t", "parameters": {"handle": "bob"}})
    some = delta_of([said, thing])
    sets = SetCache(1 << 20, thin=False)
    assert sets.edges(b"[]", some).is_guessed
    assert sets.edges(b"[]", some) is not sets.edges(b"[]", some)
    assert not make_edge_set(EDGES, resources(50)).is_guessed


def test_sets_are_counted_by_what_they_hold() -> None:
    """Each edge, each slot and each position, with its file's name."""
    few, many = (make_edge_set(EDGES, resources(count)) for count in (50, 500))
    assert few.bytes_ == many.bytes_  # the same edges, whoever stands around
    none = make_edge_set(b"[]", resources(50))
    fields = len(few.content.fields) - len(none.content.fields)
    assert few.bytes_ - none.bytes_ == fields + 8 * 49
    sets = SetCache(1 << 30, thin=False)
    small, large, far = (
        sets.positions(delta_of(resources(count, file=file))).bytes_
        for count, file in ((50, "/m"), (100, "/m"), (50, "/" + "m" * 1000))
    )
    assert 50 * 200 <= large - small <= 50 * 400
    assert far - small == 50 * 999
    one_place = delta_of([made(PLAIN | {"title": f"{n}"}) for n in range(1000)])
    assert 8000 <= sets.positions(one_place).bytes_ <= 12_000  # all of them in the same


def test_baselines_fill_their_room_and_no_more() -> None:
    """However many come and go: those that are there are within the bytes, and nobody went before they were up."""
    come = [baseline_of([b'"%b"' % (b"x" * (1000 + n))]) for n in range(40)]
    room = 10 * max(one.bytes_ for one in come)
    several = Baselines(room)
    for at, one in enumerate(come):
        put(several, one)
        there = [each for each in come[: at + 1] if each.resources[0].baselines]
        assert sum(each.bytes_ for each in there) <= room
        assert len(there) == min(at + 1, 10)
        assert there[-1] is one
    while several.forget_oldest():
        pass
    put(several, come[0])
    assert several.near(1000) == [come[0]]


def test_baselines_of_one_length_are_two() -> None:
    """And a resource that both have is needed until both are forgotten."""
    shared = cached(b'"shared"')
    pair = [
        make_baseline(b"[%b,%b]" % (b'"shared"', other), [shared, cached(other)], thin=False)
        for other in (b'"a"', b'"b"')
    ]
    several = Baselines(1 << 20)
    for one in pair:
        put(several, one)
    assert several.near(14) == pair
    assert shared.baselines == 2
    several.forget_oldest()
    assert several.near(14) == pair[1:]
    assert shared.baselines == 1


@pytest.mark.parametrize("early_bytes", [None, 0])
def test_what_a_lane_has_it_is_not_given_with_others_baselines(early_bytes: int | None) -> None:
    """Two lanes in turn, of catalogs that have one resource more each time, which is more than may stand in another's place:
    each gets what it was not given, and what the other one was given meanwhile makes no difference."""
    one = Decoding(1 << 26, lanes=LANES, early_bytes=early_bytes)
    names = [next(name for name in CERTNAMES if lane_of(name, LANES) == lane) for lane in range(LANES)]
    given: list[set[str]] = [set(), set()]
    for count in range(3, 9):
        for lane in (0, 1):
            titles = {f"/{n}" for n in range(count)}
            raw = body(names[lane], [{"type": "File", "title": title} for title in sorted(titles)], "wire")
            writers = Writers()
            work = full(one, raw, writers=writers)
            contents = [
                *work.contents.values(),
                *[c for piece in writers.early for c in piece.contents.values()],
            ]
            assert len(contents) == len(titles - given[lane])
            given[lane] |= titles
        assert full(one, raw).contents == {}
        assert full(one, raw).edges is full(one, raw).positions is None


def test_work_says_whose_it_is() -> None:
    """A claim as well as a whole catalog: by these it is settled, and its time told."""
    one = Decoding(1 << 20)
    raw = body("a", [PLAIN], "native")
    work = full(one, raw)
    claim = decode(one, raw, {"a": work.sections})
    for found in (work, claim):
        assert (found.delivery, found.certname) == (1, "a")
        assert (
            found.received_at == found.header.producer_timestamp
        )  # it names none, and has no broker's stamp


def test_settings_reach_the_decoder() -> None:
    """Each of them changes what a body becomes."""
    raw = body("b", [PLAIN, PLAIN | {"title": "e", "exported": True}], "native", edges=[])
    plain = DecoderSettings(cache_bytes_max=1 << 20)
    usual, seeded, thin, early = (
        open_decoder(settings)
        for settings in (
            plain,
            DecoderSettings(cache_bytes_max=1 << 20, seed=1),
            DecoderSettings(cache_bytes_max=1 << 20, thin=True),
            DecoderSettings(cache_bytes_max=1 << 20, early_bytes=0),
        )
    )
    work = full(usual, raw)
    assert full(seeded, raw).sections.fingerprint != work.sections.fingerprint
    assert (work.slots, full(thin, raw).slots) == (2, 1)
    assert (len(work.contents), full(early, raw).contents) == (2, {})
    lanes = open_decoder(DecoderSettings(cache_bytes_max=1 << 20, lanes=LANES))
    both = [next(name for name in CERTNAMES if lane_of(name, LANES) == lane) for lane in range(LANES)]
    assert [len(full(lanes, body(name, [PLAIN], "native")).contents) for name in both] == [1, 1]
    assert [len(full(usual, body(name, [PLAIN], "native")).contents) for name in both] == [0, 0]


def raw_of(members: dict[str, Any]) -> msgspec.Raw:
    return msgspec.Raw(compact(members))


def find(cache: ResourceCache, *members: dict[str, Any], family: str = "native") -> list[CachedResource]:
    """All of them; what is new comes as soon as it is made."""
    finding = cache.find([raw_of(one) for one in members], family)
    while True:
        try:
            next(finding)
        except StopIteration as found:
            return list(found.value)


def test_a_resource_that_was_met_is_the_same_one() -> None:
    """In another catalog, and where it stands twice in one; what was counted says so."""
    cache = ResourceCache(1 << 20, lambda: False)
    other = PLAIN | {"title": "other"}
    first = find(cache, PLAIN, PLAIN, other)
    assert first[0] is first[1] is not first[2]
    assert (cache.hits, cache.misses) == (1, 2)
    again = find(cache, other, PLAIN, PLAIN | {"title": "third"})
    assert again[0] is first[2]
    assert again[1] is first[0]
    assert (cache.hits, cache.misses) == (3, 3)


@pytest.mark.parametrize("gives_way", [True, False])
def test_what_baselines_hold_makes_way_when_there_is_no_room(gives_way: bool) -> None:
    """The cache asks for it. When nothing gives way, what is held stays, and what comes is not kept."""
    asked = 0
    held: list[CachedResource] = []

    def need_less() -> bool:
        nonlocal asked
        asked += 1
        if gives_way and held:
            held.pop(0).baselines = 0
        return gives_way and bool(held)

    def titled(n: int) -> dict[str, Any]:
        return PLAIN | {"title": f"{n}"}

    cache = ResourceCache(20_000, need_less)
    n = 0
    while sum(one.bytes_ for one in held) < 18_000:
        (one,) = find(cache, titled(n))
        one.baselines, n = 1, n + 1
        held.append(one)
    full_of = n
    for _ in range(10):
        find(cache, titled(n))
        n += 1
    assert asked
    misses = cache.misses
    find(cache, titled(0))
    assert (cache.misses == misses) is not gives_way
    assert full_of > 10


@pytest.mark.parametrize("family", ["native", "puppetdb", "legacy"])
def test_a_large_content_is_forgotten_and_comes_again(family: str) -> None:
    """Not the resource: it is made again from the JSON that it was found by, as its family has it; a small one stays."""
    parameters = {"path": "/other", "before": ["T[b]", "T[a]"], "content": "x" * (KEPT_CONTENT_BYTES_MAX + 1)}
    large, small = PLAIN | {"type": "File", "parameters": parameters}, PLAIN
    cache = ResourceCache(1 << 20, lambda: False)
    one, other = find(cache, large, small, family=family)
    contents = [content_of(one), content_of(other)]
    assert [type(one.content), type(other.content)] == [Content, Content]
    cache.forget_large()
    assert [type(one.content), type(other.content)] == [LargeContent, Content]
    assert [content_of(one), content_of(other)] == contents
    assert find(cache, large, family=family)[0] is one


def test_no_two_refs_have_one_key() -> None:
    """Wherever U+0000 stands in them; and the keys' order is the refs'."""
    parts = ["", "a", "a\0", "\0", "\0\0", "a\0b", "a\0\0b", "b", "\0b"]
    refs = sorted(Ref(type_, title) for type_ in parts for title in parts)
    keys = [sort_key_of(ref) for ref in refs]
    assert len(set(keys)) == len(keys)
    assert sorted(keys) == keys
