"""A decoder's caches save work and change nothing: whatever was met, forgotten or never seen, the work is the same."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.core.catalog.decoding import Decoding
from ingest.core.catalog.resource_cache import KEPT_CONTENT_BYTES_MAX
from ingest.core.delivery.routing import lane_of
from ingest.core.delivery.work import (
    DIGEST_BYTES,
    Claim,
    Content,
    Descriptor,
    EarlyContents,
    EdgeSet,
    Full,
    PositionSet,
    SectionDigests,
)
from ingest.errors import Rejected
from lab import real_catalogs as corpus

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CERTNAMES = ["a", "b", "c", "d"]
LANES = 2
TITLES = ["/a", "/b", "/c", "/d"]
# {} is the certname.
ODD_TITLES = ["{}", "/{}", "{}{}", "k", "n", "zz", "\udcfe", "\xfe", "m"]
LARGE = "x" * (KEPT_CONTENT_BYTES_MAX + 1)


def body(certname: str, resources: list[dict[str, Any]], family: str, *, edges: Any = ()) -> bytes:
    sections = {"resources": resources, "edges": edges}
    if family == "native":
        return compact({"name": certname, "version": 1} | sections)
    payload = {"certname": certname, "version": "1"} | sections
    return compact({"command": "replace catalog", "version": 9, "payload": payload})


def compact(document: dict[str, Any]) -> bytes:
    """As Puppet writes it."""
    return json.dumps(document, separators=(",", ":")).encode()


def decode(
    one: Decoding,
    raw: bytes,
    known: dict[str, SectionDigests] | None = None,
    *,
    complete: bool = False,
    writers: Writers | None = None,
) -> Claim | Full:
    """The work; ``writers`` take what came before it."""
    descriptor = Descriptor(1, 1, 0, len(raw), len(raw), NOW, {}, complete)
    *early, work = one.decode(descriptor, memoryview(raw), known or {})
    if writers is not None:
        writers.take_early(early)
    assert isinstance(work, Claim | Full)
    return work


def full(one: Decoding, raw: bytes, *, complete: bool = False, writers: Writers | None = None) -> Full:
    work = decode(one, raw, complete=complete, writers=writers)
    assert isinstance(work, Full)
    return work


class Writers:
    """What each lane was given; ``whole`` puts a work together as its writer can."""

    def __init__(self) -> None:
        self.contents: dict[tuple[int, bytes], Content] = {}
        self.sets: dict[tuple[int, bytes], EdgeSet | PositionSet] = {}
        self.early: list[EarlyContents] = []

    def take_early(self, pieces: Iterable[object]) -> None:
        for early in pieces:
            assert isinstance(early, EarlyContents)
            self.early.append(early)
            lane = lane_of(early.certname, LANES)
            for digest, content in early.contents.items():
                self.contents[lane, digest] = content

    def whole(self, work: Full) -> tuple[Any, ...]:
        lane = lane_of(work.header.certname, LANES)
        digests = [work.digests[at : at + DIGEST_BYTES] for at in range(0, len(work.digests), DIGEST_BYTES)]
        for slot, content in work.contents.items():
            self.contents[lane, digests[slot]] = content
        if work.edges is not None:
            self.sets[lane, work.edge_set] = work.edges
        if work.positions is not None:
            self.sets[lane, work.position_set] = work.positions
        return (
            work.header, work.sections.raw_digest, work.content_digest, work.exported,
            [(digest, self.contents[lane, digest]) for digest in digests],
            self.sets[lane, work.edge_set], self.sets[lane, work.position_set],
        )  # fmt: skip


@st.composite
def catalogs(draw: st.DrawFn) -> bytes:
    titles = draw(st.lists(st.sampled_from(TITLES), unique=True, max_size=4))
    resources = []
    for title in titles:
        parameters: dict[str, Any] = {"x": draw(st.sampled_from([1, 1.5, "\0", LARGE, LARGE + "\0", None]))}
        if draw(st.booleans()):
            parameters["before"] = f"File[{draw(st.sampled_from(titles))}]"
        members = {"type": "File", "title": title, "parameters": parameters, "file": "/m.pp"}
        resources.append(members | {"exported": draw(st.booleans()), "line": draw(st.integers(1, 2))})
    edges = [
        {"source": {"type": "File", "title": a}, "target": {"type": "File", "title": b}, "relationship": "contains"}
        for a, b in draw(st.lists(st.tuples(st.sampled_from(titles), st.sampled_from(titles)), max_size=2))
    ] if titles else []  # fmt: skip
    return body(
        draw(st.sampled_from(CERTNAMES)), resources, draw(st.sampled_from(["native", "wire"])), edges=edges
    )


@settings(max_examples=150, deadline=None)
@given(
    st.lists(catalogs(), min_size=1, max_size=8),
    st.sampled_from([0, 8, 3000, 20_000, 1 << 30]),
    st.sampled_from([0, 150, 1 << 30]),
)
def test_a_cache_of_any_size_gives_the_same_catalogs(
    bodies: list[bytes], cache_bytes_max: int, early_bytes: int
) -> None:
    """One that forgets everything at once, one that forgets now and then, one that forgets nothing, and however much
    goes early: a lane can always put together what a new decoder says of the same body."""
    writers = Writers()
    one = Decoding(cache_bytes_max, lanes=LANES, early_bytes=early_bytes)
    for raw in bodies:
        alone = full(Decoding(1 << 20, lanes=LANES), raw)
        assert writers.whole(full(one, raw, writers=writers)) == Writers().whole(alone)


@settings(max_examples=300, deadline=None)
@given(
    names=st.lists(st.sampled_from(["m", "am", "mz", "z.m", "\u00e9", "a\x01"]), min_size=2, max_size=3),
    titles=st.lists(st.sampled_from(ODD_TITLES), unique=True, min_size=1, max_size=5),
    ends=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=4),
    before=st.booleans(),
    family=st.sampled_from(["native", "wire"]),
)
def test_nodes_of_a_role_share_edges_only_where_they_are_the_same(
    names: list[str], titles: list[str], ends: list[tuple[int, int]], before: bool, family: str
) -> None:
    """Edges that differ in the certname alone, whatever that does to the order of the resources, are those that each
    catalog has alone."""
    one, writers = Decoding(1 << 20, lanes=LANES), Writers()
    for name in names:
        own = list(dict.fromkeys(title.format(name, name) for title in titles))
        resources: list[dict[str, Any]] = [{"type": "T", "title": title} for title in own]
        if before and family == "native":
            resources[0]["parameters"] = {"before": f"T[{own[-1]}]"}
        pairs = [(own[a % len(own)], own[b % len(own)]) for a, b in ends]
        edges: list[Any] = [{"source": f"T[{a}]", "target": f"T[{b}]"} for a, b in pairs]
        if family == "wire":
            edges = [
                {"source": {"type": "T", "title": a}, "target": {"type": "T", "title": b}, "relationship": "contains"}
                for a, b in pairs
            ]  # fmt: skip
        raw = body(name, resources, family, edges=edges)
        alone = full(Decoding(1 << 20, lanes=LANES), raw)
        assert writers.whole(full(one, raw)) == Writers().whole(alone)


@settings(max_examples=100, deadline=None)
@given(st.lists(catalogs(), min_size=1, max_size=6))
def test_a_content_goes_to_each_lane_once(bodies: list[bytes]) -> None:
    """As long as nothing is forgotten, what a lane was given is not sent there again, large or not; another lane
    gets it still."""
    one = Decoding(1 << 30, lanes=LANES)
    for raw in bodies:
        full(one, raw)
    for raw in bodies:
        again = full(one, raw)
        assert (again.contents, again.edges, again.positions) == ({}, None, None)
    new = Decoding(1 << 30, lanes=LANES)
    for lane in range(LANES):
        certname = next(name for name in CERTNAMES if lane_of(name, LANES) == lane)
        work = full(new, body(certname, [{"type": "File", "title": "/a"}], "wire"))
        assert work.contents.keys() == {0}
        assert None not in (work.edges, work.positions)


def test_many_new_contents_go_early_in_pieces_and_only_once() -> None:
    """Each piece is as large as was asked for, the last one takes the rest, and the work brings none of them. Few go with
    their work; with thin storeconfigs all do, since most of them are not stored."""
    resources = [{"type": "File", "title": f"/{n}", "parameters": {"x": "x" * 100}} for n in range(10)]
    raw, few = body("a", resources, "wire"), body("a", [{"type": "File", "title": "/few"}], "wire")
    writers = Writers()
    one = Decoding(1 << 20, early_bytes=400)
    work = full(one, raw, writers=writers)
    assert [len(piece.contents) for piece in writers.early] == [3, 3, 3, 1]
    assert {(piece.delivery, piece.certname) for piece in writers.early} == {(work.delivery, "a")}
    assert work.contents == {}
    whole = full(Decoding(1 << 20), raw)
    digests = [whole.digests[at : at + DIGEST_BYTES] for at in range(0, len(whole.digests), DIGEST_BYTES)]
    sent = [item for piece in writers.early for item in piece.contents.items()]
    assert sorted(sent) == sorted((digests[slot], content) for slot, content in whole.contents.items())
    writers.early.clear()
    assert full(one, raw, writers=writers).contents == {}
    assert full(one, few, writers=writers).contents.keys() == {0}
    thin = Decoding(1 << 20, thin=True, early_bytes=0)
    assert full(thin, raw, writers=writers).contents == {}
    assert writers.early == []


@settings(max_examples=50, deadline=None)
@given(st.lists(catalogs(), min_size=1, max_size=4))
def test_complete_means_everything(bodies: list[bytes]) -> None:
    """Whatever was sent before, also early, and where the raw digest is the one that is stored."""
    one = Decoding(1 << 20, lanes=LANES, early_bytes=0)
    for raw in bodies:
        before = full(one, raw)
        writers = Writers()
        known = {before.header.certname: before.sections}
        assert isinstance(decode(one, raw, known), Claim)
        work = decode(one, raw, known, complete=True, writers=writers)
        assert isinstance(work, Full)
        assert work.complete
        assert work.contents.keys() == set(range(work.slots))
        assert work.edges is not None
        assert work.positions is not None
        assert writers.early == []


@pytest.mark.parametrize("form", ["native", "wire"])
def test_real_catalogs_through_a_tiny_cache(form: str) -> None:
    """Four nodes, four rounds, in turn: every one as a new decoder has it."""
    tiny, writers = Decoding(100_000, lanes=LANES), Writers()
    for round_ in corpus.ROUNDS:
        for role in corpus.ROLES:
            raw = corpus.body(role, round_, form)
            alone = full(Decoding(1 << 26, lanes=LANES), raw)
            assert writers.whole(full(tiny, raw)) == Writers().whole(alone)
    assert tiny.resources.misses > tiny.resources.hits / 10  # it did forget


@pytest.mark.parametrize("seed", [0, 1])
def test_a_known_catalog_is_a_claim_and_another_family_is_none(seed: int) -> None:
    """The same sections mean another thing in another family; a thin decoder's claim is not a whole one's. So it is when
    the fingerprint tells, and when that is of another run (another seed) and the raw digest does."""
    resources = [{"type": "File", "title": "/a", "parameters": {"before": []}}]
    one, thin = Decoding(1 << 20, seed=seed), Decoding(1 << 20, seed=seed, thin=True)
    native = full(Decoding(1 << 20), body("a", resources, "native"))
    known = {"a": native.sections}
    claim = decode(one, body("a", resources, "native"), known)
    assert isinstance(claim, Claim)
    assert (claim.sections.raw_digest, claim.header) == (native.sections.raw_digest, native.header)
    assert (claim.sections.fingerprint == native.sections.fingerprint) == (seed == 0)
    assert isinstance(decode(one, body("a", resources, "wire"), known), Full)
    assert isinstance(decode(thin, body("a", resources, "native"), known), Full)
    assert isinstance(decode(one, body("b", resources, "native"), known), Full)


def test_one_text_in_two_families_is_two_resources() -> None:
    """The cache is asked by family: a native namevar becomes an alias, in the wire form it does not."""
    resources = [{"type": "File", "title": "/a", "parameters": {"path": "/b"}}]
    one = Decoding(1 << 20)
    native, wire = (full(one, body("a", resources, family)) for family in ("native", "wire"))
    assert native.digests != wire.digests
    assert one.resources.misses == 2


def test_a_large_content_is_made_again_for_every_lane() -> None:
    """It is not kept, and yet each lane gets it once, and all of it."""
    resources = [{"type": "File", "title": "/a", "parameters": {"content": LARGE}}]
    one = Decoding(1 << 20, lanes=LANES)
    first = next(name for name in CERTNAMES if lane_of(name, LANES) == 0)
    second = next(name for name in CERTNAMES if lane_of(name, LANES) == 1)
    for family in ("wire", "native"):
        contents = [full(one, body(name, resources, family)).contents for name in (first, second, first)]
        assert contents[0].keys() == {0}
        assert contents[0] == contents[1]
        assert LARGE.encode() in contents[0][0].tail
        assert contents[2] == {}


def test_the_same_resource_twice_in_a_body_is_refused() -> None:
    """Also when the second one is the first, byte for byte, and comes from the cache."""
    resources = [
        {"type": "File", "title": "/a"},
        {"type": "File", "title": "/b"},
        {"type": "File", "title": "/a"},
    ]
    one = Decoding(1 << 20)
    for _ in range(2):
        with pytest.raises(Rejected) as caught:
            decode(one, body("a", resources, "wire"))
        assert caught.value.reason == "duplicate_resource"


def test_a_title_with_nul_is_not_two_resources() -> None:
    """Edges that were met with other resources are not taken for those of this catalog."""
    edges = [{"source": {"type": "A", "title": "x"}, "target": {"type": "B", "title": "y"}}]
    two = [{"type": "A", "title": "x"}, {"type": "B", "title": "y"}]
    one = Decoding(1 << 20)
    full(one, body("a", two, "wire", edges=edges))
    with pytest.raises(Rejected) as caught:
        decode(one, body("a", [{"type": "A", "title": "x\0B\0y"}], "wire", edges=edges))
    assert caught.value.reason == "dangling_edge"


odd_names = st.text(st.sampled_from("a\0\1\ud800é\uffff\U00010000"), max_size=3)


@given(st.sets(st.tuples(odd_names, odd_names), max_size=6))
def test_slots_are_in_the_order_of_the_refs(refs: set[tuple[str, str]]) -> None:
    """Whatever characters a type or a title has: the order that ``normalise`` and readers have."""
    work = full(Decoding(1 << 20), body("a", [{"type": t, "title": n} for t, n in refs], "wire"))
    alone = [full(Decoding(1 << 20), body("a", [{"type": t, "title": n}], "wire")) for t, n in sorted(refs)]
    assert work.digests == b"".join(one.digests for one in alone)


@given(st.text(st.characters(codec=None)), st.integers(1, 16))
def test_a_lane_is_one_of_the_lanes(certname: str, lanes: int) -> None:
    """For every certname, and the same whoever asks."""
    assert 0 <= lane_of(certname, lanes) < lanes
    assert lane_of("n.example.com", 8) == 7  # in every process, on every machine
