"""What a catalog is compared with never changes what it is: neither its elements, nor the work that is made of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.core.catalog.array_delta import EDGES, RESOURCES, Search, differences
from ingest.core.catalog.baseline import Baseline, Replacement, all_resources, make_baseline
from ingest.core.catalog.baselines import SAMPLES, Baselines, likeness
from ingest.core.catalog.cache import CachedResource
from ingest.core.catalog.decoding import Decoding
from ingest.core.catalog.formats import slices
from ingest.core.catalog.model import Ref
from ingest.core.catalog.storable import Position
from ingest.core.delivery.routing import lane_of
from ingest.core.delivery.work import Content, Full
from ingest.errors import Rejected
from lab import real_catalogs as corpus
from tests.core.test_decoding import CERTNAMES, LANES, Writers, body, full


def cached(raw: bytes) -> CachedResource:
    """One that is only its JSON."""
    return CachedResource(
        ref=Ref("T", repr(raw)), sort_key=raw, edge_digest=bytes(20), length=len(raw), name=raw, exported=False,
        relations=(), aliases=(), is_virtual=False, digest=bytes(20), position=Position(bytes(20), b""),
        content=Content(b"", "", raw),
    )  # fmt: skip


def baseline_of(elements: list[bytes]) -> Baseline:
    return make_baseline(b"[%b]" % b",".join(elements), [cached(raw) for raw in elements], thin=False)


def by_differences(section: bytes, baseline: Baseline, search: Search = RESOURCES) -> list[bytes] | None:
    found = differences(memoryview(section), baseline.array, search) if baseline.array else None
    if found is None:
        return None
    return [
        one.sort_key
        for one in all_resources(
            baseline, [Replacement(d, [cached(bytes(raw)) for raw in d.raws]) for d in found]
        )
    ]


# Elements that look like one another's begin, like their ends, and like what stands between them.
ELEMENTS = [b'{"type":"File","title":"/%d","a":[1,{"b":"],["}]}' % n for n in range(12)]
ELEMENTS += [
    b'{"type":"File","title":"/1"}',
    b"1",
    b"12",
    b"2",
    b'"1"',
    b'","',
    b'"],["',
    b"[]",
    b"[1]",
    b"{}",
    b'{"a":[1]}',
]


@settings(max_examples=400, deadline=None)
@given(
    old=st.lists(st.sampled_from(ELEMENTS), unique=True, max_size=12),
    new=st.lists(st.sampled_from(ELEMENTS), max_size=12),
    cut=st.tuples(
        st.integers(0, 400), st.integers(0, 6), st.sampled_from([b"", b",", b"]", b"[", b'"', b" ", b"1"])
    ),
)
def test_differences_are_true_or_not_told(
    old: list[bytes], new: list[bytes], cut: tuple[int, int, bytes]
) -> None:
    """For every array, and for text that is none any more: its elements, or None; never what a parse does not find."""
    baseline = baseline_of(old)
    section = b"[%b]" % b",".join(new)
    at, length, instead = cut
    for text in (section, section[:at] + instead + section[at + length :]):
        try:
            expected: list[bytes] | None = list(map(bytes, slices(text)))
        except Rejected:
            expected = None
        for search in (RESOURCES, EDGES):
            assert by_differences(text, baseline, search) in (expected, None)


@pytest.mark.parametrize(
    "text",
    ["[1,2]3]", "[1,2],3]", "[1,2]]", "[1,]", "[1,2,]", "[,1]", "[1,,2]", "[1, ]", "[12]", "1,2", "[1,2"],
)
def test_what_only_begins_like_an_array_is_told_by_a_parse(text: str) -> None:
    """Commas without values between, and what stands behind the end."""
    found = by_differences(text.encode(), baseline_of([b"1", b"2"]))
    assert found == ([b"12"] if text == "[12]" else None)


EDITS = st.sampled_from(["change", "longer", "leave out", "insert", "swap"])


@given(st.lists(st.tuples(EDITS, st.integers(10, 189)), max_size=10), st.integers(1, 3000))
def test_a_few_differences_are_found_without_a_whole_parse(edits: list[tuple[str, int]], size: int) -> None:
    """Wherever they are among two hundred resources, and only what is around them is parsed."""
    old = [
        b'{"type":"File","title":"/etc/%d","parameters":{"content":"%b"}}' % (n, b"x" * (n % 7))
        for n in range(200)
    ]
    new = list(old)
    for edit, at in edits:
        if edit == "change":
            new[at] = new[at].replace(b"x", b"y")
        elif edit == "longer":
            new[at] = new[at].replace(b'":"', b'":"' + b"z" * size, 1)
        elif edit == "leave out":
            del new[at]
        elif edit == "insert":
            new.insert(at, b'{"type":"File","title":"/new/%d"}' % len(new))
        else:
            new[at], new[at + 1] = new[at + 1], new[at]
    section = b"[%b]" % b",".join(new)
    array = baseline_of(old).array
    assert array is not None
    found = differences(memoryview(section), array, RESOURCES)
    assert found is not None
    assert sum(len(one.raws) for one in found) <= 40 * len(edits)
    assert by_differences(section, baseline_of(old)) == new


@st.composite
def like_catalogs(draw: st.DrawFn) -> list[bytes]:
    """Of nodes of two roles: each catalog is another one's with some edits."""
    family = draw(st.sampled_from(["native", "wire"]))
    roles = [
        [{"type": "File", "title": f"/{role}/{n:02}", "exported": n % 5 == 0, "parameters": {"x": n}} for n in range(30)]
        for role in "ab"
    ]  # fmt: skip
    bodies = []
    for _ in range(draw(st.integers(2, 6))):
        resources: list[dict[str, Any]] = draw(st.sampled_from(roles))
        certname = draw(st.sampled_from(CERTNAMES))
        for edit in draw(
            st.lists(
                st.sampled_from(["parameter", "line", "title", "exported", "insert", "delete"]), max_size=3
            )
        ):
            at = draw(st.integers(0, len(resources) - 1))
            if edit == "parameter":
                resources[at]["parameters"] = {"x": draw(st.integers(0, 3))}
            elif edit == "line":
                resources[at]["line"] = draw(st.integers(0, 3))
            elif edit == "title":
                resources[at]["title"] = draw(
                    st.sampled_from(["/a/00", "/b/07", f"/{certname}", f"/a/{at:02}x", "/zz"])
                )
            elif edit == "exported":
                resources[at]["exported"] = not resources[at]["exported"]
            elif edit == "insert":
                resources.insert(at, {"type": "File", "title": f"/new/{len(resources)}", "exported": False})
            else:
                del resources[at]
        ends = draw(st.tuples(st.sampled_from(resources), st.sampled_from(resources)))
        edge: dict[str, Any] = {"source": f"File[{ends[0]['title']}]", "target": f"File[{ends[1]['title']}]"}
        if family == "wire":
            edge = {
                way: {"type": "File", "title": end["title"]}
                for way, end in zip(("source", "target"), ends, strict=True)
            }
            edge["relationship"] = "contains"
        bodies.append(body(certname, resources, family, edges=[edge]))
    return bodies


@settings(max_examples=300, deadline=None)
@given(like_catalogs(), st.sampled_from([0, 20_000, 100_000, 1 << 30]), st.booleans())
def test_catalogs_alike_are_what_each_is_alone(bodies: list[bytes], cache_bytes_max: int, thin: bool) -> None:
    """A lane can always put together what a new decoder says of the same body; also of one that is refused."""
    one, writers = Decoding(cache_bytes_max, lanes=LANES, thin=thin), Writers()
    for raw in bodies:
        try:
            alone: Full | str = full(Decoding(1 << 20, lanes=LANES, thin=thin), raw)
        except Rejected as rejected:
            alone = rejected.reason
        try:
            found: Full | str = full(one, raw)
        except Rejected as rejected:
            found = rejected.reason
        if isinstance(found, Full) and isinstance(alone, Full):
            assert writers.whole(found) == Writers().whole(alone)
        else:
            assert found == alone


def role(*titles: str) -> list[dict[str, Any]]:
    return [{"type": "File", "title": title, "parameters": {"x": title}} for title in (*TWENTY, *titles)]


TWENTY = tuple(f"/f/{n:02}" for n in range(20))


@pytest.mark.parametrize("title", ["/a", "/f/00", "/f/05", "/f/19", "/z"])
def test_another_title_in_its_place_is_sorted_in(title: str) -> None:
    """Wherever it belongs, and refused where there is one already."""
    one, writers = Decoding(1 << 20, lanes=LANES), Writers()
    writers.whole(full(one, body("a", role("/f/10x"), "wire")))
    raw = body("a", role(title), "wire")
    if title in TWENTY:
        with pytest.raises(Rejected, match="twice"):
            full(one, raw)
    else:
        assert writers.whole(full(one, raw)) == Writers().whole(full(Decoding(1 << 20, lanes=LANES), raw))


def test_a_lane_gets_what_stood_in_anothers_place() -> None:
    """A lane that was given all but the node's own resources is given another node's own when that one comes."""
    first, second, third = [name for name in map(str, range(50)) if lane_of(name, LANES) == 1][:3]
    one, writers = Decoding(1 << 20, lanes=LANES), Writers()
    other = next(name for name in CERTNAMES if lane_of(name, LANES) == 0)
    for certname, title in ((other, "/own/0"), (first, "/own/1"), (second, "/own/0"), (third, "/own/1")):
        writers.whole(full(one, body(certname, role(title), "wire")))


@pytest.mark.parametrize("form", ["wire", "native"])
def test_a_real_catalog_with_a_few_changes_is_alike(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a node's next run, and of another node of its role: neither gets a baseline of its own."""
    one, writers = Decoding(1 << 26, lanes=LANES), Writers()
    first, next_ = (corpus.body("minimal-01", run, form) for run in (1, 3))
    work = full(one, first)
    certname = work.header.certname
    writers.whole(work)
    bodies = (next_, first.replace(certname.encode(), b"min-07.example.com"))
    alone = [Writers().whole(full(Decoding(1 << 26, lanes=LANES), raw)) for raw in bodies]
    monkeypatch.setattr("ingest.core.catalog.decoding.make_baseline", None)
    assert [writers.whole(full(one, raw)) for raw in bodies] == alone


def test_a_role_may_be_between_two_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its nodes' catalogs come from either, as long as each other: both stay known, also when the cache is full."""

    def release(certname: str, number: int) -> bytes:
        resources = role()
        for one in resources[::2]:
            one["line"] = number
        own = {"type": "File", "title": "/own", "parameters": {"x": certname * 40}}
        return body(certname, [*resources, own], "wire")

    one, writers = Decoding(160_000, lanes=LANES), Writers()
    certnames = [f"n{number:02}" for number in range(60)]
    for number in (1, 2):
        writers.whole(full(one, release(certnames[0], number)))
    monkeypatch.setattr("ingest.core.catalog.decoding.make_baseline", None)
    for place, certname in enumerate(certnames):
        writers.whole(full(one, release(certname, 1 + place % 2)))
    assert one.resources.evictions
    kept = set(map(id, one.resources._cached.entries.values()))
    assert all(
        id(resource) in kept for baseline in one.baselines.near(0) for resource in baseline.resources
    )  # so it is counted


def text_of(baseline: Baseline) -> memoryview:
    assert baseline.array is not None
    return memoryview(baseline.array.text)


def sized(size: int) -> Baseline:
    """A baseline of one resource of so many bytes."""
    return baseline_of([b'"%b"' % (b"x" * size)])


def put(several: Baselines, one: Baseline) -> None:
    several.put(one, len(text_of(one)))


def test_the_nearest_is_found_and_the_oldest_forgotten() -> None:
    """By the body's length; what was asked for stays longer, and the bytes are a limit."""
    five = a, b, c, d, e = [sized(size) for size in (1000, 1040, 1080, 1120, 1160)]
    several = Baselines(sum(one.bytes_ for one in five) - 1)
    assert not several.near(7)
    assert several.most_alike(memoryview(b"[]"), 7, "") is None
    for one in (a, b, c, d):
        put(several, one)
    assert several.near(1050) == [b, c, a, d]
    assert several.near(7) == [a, b]
    assert several.most_alike(text_of(d), 1120, "") is d
    assert several.most_alike(text_of(a), 1000, "") is a
    assert several.most_alike(text_of(a), 1000, "native") is None
    put(several, e)  # there is no room for five, and b was not asked for since
    assert several.near(1050) == [c, a, d]
    put(several, sized(5000))
    assert several.near(9999) == [e, d]  # one that takes a quarter of the room is not kept
    assert a.resources[0].baselines == 1
    while several.forget_oldest():
        pass
    assert not several.near(7)
    assert a.resources[0].baselines == b.resources[0].baselines == 0


def test_of_a_kind_two_are_kept() -> None:
    """The one that came last, and the one that it was made from."""
    several = Baselines(1 << 20)
    before = None
    for size in range(1000, 1005):
        one = sized(size)
        if before is not None:
            one.parent = before.place
        put(several, one)
        before = one
    assert [len(text_of(one)) for one in several.near(1002)] == [1007, 1008]


def test_the_one_with_most_in_common_is_taken() -> None:
    """Though another is nearer in length; a shift of what follows does not matter, one too far does."""
    texts = [b'"%03d %b"' % (n, b"x" * 300) for n in range(100)]
    moved = [text.replace(b"x", b"y") if n % 2 else text for n, text in enumerate(texts)]
    baselines = [baseline_of(elements) for elements in (texts, moved)]
    several = Baselines(1 << 20)
    for length, one in zip((1000, 2000), baselines, strict=True):
        several.put(one, length)
    for length in (1000, 2000):
        assert several.most_alike(text_of(baselines[0]), length, "") is baselines[0]
        assert several.most_alike(text_of(baselines[1]), length, "") is baselines[1]
    assert (
        likeness(memoryview(b"[%b]" % b",".join([b'"%b"' % (b"z" * 1000), *texts])), baselines[0]) == SAMPLES
    )
    assert likeness(memoryview(b"[%b]" % b",".join([b'"%b"' % (b"z" * 9000), *texts])), baselines[0]) == 0
