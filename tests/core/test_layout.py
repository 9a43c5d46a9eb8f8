"""The glance at a body whose layout is known says what a whole parse says, or nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.core.catalog import recognise
from ingest.core.catalog.decoding import Decoding
from ingest.core.delivery.work import Claim, Deactivate, Descriptor, Full, SectionDigests
from ingest.errors import Rejected
from lab import real_catalogs as corpus
from lab.decoding import work_of

AT = datetime(2026, 1, 1, tzinfo=UTC)
FORMS = ("wire", "native")
# Of one node: met before, unchanged, and with other parameters, other lines and other resources.
BODIES = {form: tuple(corpus.body("minimal-01", run, form) for run in (1, 2, 3, 4)) for form in FORMS}


def decode(one: Decoding, body: bytes, known: dict[str, SectionDigests]) -> Claim | Full | Deactivate:
    return work_of(one, Descriptor(1, 1, 0, len(body), len(body), AT, {}), body, known)


def acquainted(form: str, *, thin: bool = False) -> tuple[Decoding, dict[str, SectionDigests]]:
    """A decoder that has met the first body, whose catalog is stored."""
    one = Decoding(1 << 20, thin=thin)
    work = decode(one, BODIES[form][0], {})
    assert isinstance(work, Full)
    return one, {work.header.certname: work.sections}


@pytest.mark.parametrize("form", FORMS)
def test_an_unchanged_catalog_is_claimed_without_a_whole_parse(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run of real Puppet has the same layout: header and digest are those of a whole parse."""
    one, known = acquainted(form)
    whole = decode(Decoding(1 << 20), BODIES[form][1], known)
    monkeypatch.setattr(recognise, "skim", None)
    assert decode(one, BODIES[form][1], known) == whole
    assert isinstance(whole, Claim)


@pytest.mark.parametrize("thin", [False, True])
@pytest.mark.parametrize("run", [3, 4])
@pytest.mark.parametrize("form", FORMS)
def test_a_changed_catalog_is_cut_without_a_whole_parse(
    form: str, run: int, thin: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sections that became longer or shorter are found too, and read as by a whole parse."""
    one = Decoding(1 << 20, thin=thin)
    decode(one, BODIES[form][0], {})
    body = BODIES[form][run - 1]
    whole = _reading(Decoding(1 << 20, thin=thin), body, {})
    monkeypatch.setattr(recognise, "skim", None)
    assert _reading(one, body, {}) == whole


SNIPPETS = [
    b"",
    b"[]",
    b'"',
    b"\\",
    b"{}",
    b",",
    b'"edges":[],',
    b'"resources":[],',
    b',"resources":[]',
    b"]",
    b"}",
    b"\xff",
]


@settings(max_examples=400, deadline=None)
@given(
    form=st.sampled_from(FORMS),
    run=st.sampled_from([2, 3, 4]),
    thin=st.booleans(),
    at=st.floats(0, 1),
    near=st.sampled_from(["anywhere", "head", "tail", "gap"]),
    deleted=st.integers(0, 40),
    inserted=st.one_of(st.sampled_from(SNIPPETS), st.binary(max_size=60)),
)
@example(form="wire", run=2, thin=False, at=1.0, near="tail", deleted=0, inserted=b',"resources":[]')
def test_a_damaged_body_is_read_as_without_the_glance(
    form: str, run: int, thin: bool, at: float, near: str, deleted: int, inserted: bytes
) -> None:
    """Whatever is cut out or put in anywhere: the same work, or the same refusal."""
    body = BODIES[form][run - 1]
    edges = body.rindex(b'"edges":')
    start, length = {
        "anywhere": (0, len(body)),
        "head": (0, body.index(b'"resources":') + 40),
        "gap": (edges - 20, 40),
        "tail": (len(body) - 300, 300),
    }[near]
    place = start + int(at * length)
    damaged = body[:place] + inserted + body[place + deleted :]
    one, known = acquainted(form, thin=thin)
    assert _reading(one, damaged, known) == _reading(Decoding(1 << 20, thin=thin), damaged, known)


def _reading(one: Decoding, body: bytes, known: dict[str, SectionDigests]) -> object:
    try:
        work = decode(one, body, known)
    except Rejected as rejected:
        return rejected.reason, rejected.text
    if isinstance(work, Full):  # what was met before is not sent again: compare what does not depend on that
        return work.header, work.sections.raw_digest, work.content_digest
    return work


def laid_out(form: str, *, edges: int = 20, version: str = "1", tail: str = "t", more: str = "") -> bytes:
    """A body of more than 64 KiB, as Puppet lays it out; ``more`` stands where a member may."""
    resources = [{"type": "T", "title": f"{n:04}", "parameters": {"x": "y" * 1000}} for n in range(80)]
    ends = [f"{n:04}" for n in range(1, edges + 1)]
    if form == "native":
        found: list[dict[str, object]] = [{"source": "T[0000]", "target": f"T[{end}]"} for end in ends]
        head = {"name": "n", "version": version}
    else:
        found = [
            {"source": {"type": "T", "title": "0000"}, "target": {"type": "T", "title": end}, "relationship": "contains"}
            for end in ends
        ]  # fmt: skip
        head = {"certname": "n", "version": version}
    members = {**head, "resources": resources, "edges": found, "environment": tail}
    text = json.dumps(members, separators=(",", ":"))
    if form == "wire":
        text = f'{{"command":"replace catalog","version":9,"payload":{text}}}'
    return text.replace('"resources":', more + '"resources":', 1).encode()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "next_",
    [{"edges": 21}, {"edges": 19}, {"edges": 79}, {"version": "1" * 900}, {"tail": "t" * 900},
     {"edges": 70, "version": "12", "tail": "tail"}],
)  # fmt: skip
def test_a_body_may_grow_everywhere(
    form: str, next_: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands before the sections, the edges, and what stands behind them, each by some: no whole parse is needed, neither
    for that one nor for one that is as before."""
    before, body = laid_out(form), laid_out(form, **next_)
    whole = _reading(Decoding(1 << 22), body, {})
    one = Decoding(1 << 22)
    first = _reading(one, before, {})
    monkeypatch.setattr(recognise, "skim", None)
    assert _reading(one, body, {}) == whole
    assert _reading(one, body, {}) == whole
    assert _reading(one, before, {}) == first


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", ['"resources":', '"environment":'])
@pytest.mark.parametrize("depth", [150, 300])
def test_what_stands_around_the_sections_may_be_nested_as_deeply_as_they(
    form: str, place: str, depth: int
) -> None:
    """Before and behind them, in a large body too; known or not."""
    plain = laid_out(form)
    nested = b'"more":%b,%b' % (b"[" * depth + b"]" * depth, place.encode())
    body = plain.replace(place.encode(), nested, 1)
    for acquainted_before in (False, True):
        one = Decoding(1 << 22)
        if acquainted_before:
            _reading(one, plain, {})
        found = _reading(one, body, {})
        assert (found[0] == "too_deep") is (depth == 300)  # type: ignore[index]
        assert _reading(one, plain, {}) == _reading(Decoding(1 << 22), plain, {})
        assert _reading(one, body, {}) == found


@pytest.mark.parametrize("form", FORMS)
def test_a_body_with_its_sections_elsewhere_is_read_whole(form: str) -> None:
    """A section that is there twice is the last one of them, and one in a string is none, whoever knows the node's layout."""
    plain = laid_out(form)
    for more in ('"edges":[],', '"resources":[],', r'"x":"\"resources\":[],\"edges\":[",'):
        for text in (
            laid_out(form, more=more),
            plain.replace(b',"environment"', b',%b"environment"' % more.encode()),
        ):
            one = Decoding(1 << 22)
            _reading(one, plain, {})
            assert _reading(one, text, {}) == _reading(Decoding(1 << 22), text, {})
            assert _reading(one, plain, {}) == _reading(Decoding(1 << 22), plain, {})
