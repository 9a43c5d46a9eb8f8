"""The glance at a body whose layout is known says what a whole parse says, or nothing."""

from __future__ import annotations

from datetime import UTC, datetime

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
