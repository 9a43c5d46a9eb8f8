"""Where a node's sections lay in its last body, so that its next one need not be parsed to find them.

Most catalogs are byte for byte the last one, but for a header whose length hardly changes. So the sections are
looked for where they were, cut out, and digested; what remains is a few hundred bytes, which the parser reads
as strictly as ever, with a marker in each section's place. When the digest is the one that is stored, these are the
very bytes that were parsed before, and the body as a whole is the JSON it seems to be. When it is not, nothing is
believed of the guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar

import msgspec
from blake3 import blake3

from ingest.core.formats import Skim, skim
from ingest.errors import Rejected

NAMES = (b'"resources":', b'"edges":')
SHIFT_BYTES_MAX = 64  # how far a header's length varies: a timestamp's fraction, a longer version
HEAD_BYTES_MAX = 65536  # of a body before its resources: native catalogs have their tags and classes there
GAP_BYTES_MAX = 256  # between resources and edges


class Layout(msgspec.Struct, frozen=True):
    """(offset, length) of both sections in a body; resources come first."""

    resources: tuple[int, int]
    edges: tuple[int, int]
    bytes_: ClassVar[int] = 300  # about what remembering it costs


class Cut(msgspec.Struct, frozen=True):
    """A body's sections as the layout has them, and the rest, skimmed."""

    rest: Skim
    resources: memoryview
    edges: memoryview


def layout_of(body: memoryview, skimmed: Skim) -> Layout | None:
    """Where a skimmed body's sections seem to be; None when that is not where Puppet puts them."""
    resources = _find(body, NAMES[0], 0, HEAD_BYTES_MAX, len(skimmed.resources))
    if resources is None:
        return None
    edges = _find(body, NAMES[1], resources + len(skimmed.resources), GAP_BYTES_MAX, len(skimmed.edges))
    return None if edges is None else Layout((resources, len(skimmed.resources)), (edges, len(skimmed.edges)))


def cut(body: memoryview, layout: Layout, headers: Mapping[str, str], received_at: datetime) -> Cut | None:
    """The body's parts if it may have this layout; None: skim it whole."""
    (resources, resources_length), (edges, edges_length) = layout.resources, layout.edges
    from_ = max(0, resources - len(NAMES[0]) - SHIFT_BYTES_MAX)
    start = _find(body, NAMES[0], from_, len(NAMES[0]) + 2 * SHIFT_BYTES_MAX, resources_length)
    if start is None:
        return None
    resources_end = start + resources_length
    edges_start = edges + start - resources
    edges_end = edges_start + edges_length
    if edges_end > len(body):
        return None
    around = (body[:start], body[resources_end:edges_start], body[edges_end:])
    # No text holds its own digest: where the marker is read is where it was put, not in a string or elsewhere.
    marker = b'["%s"]' % blake3(b"".join(around)).hexdigest().encode()
    rest = marker.join(around)
    try:
        skimmed = skim(rest, headers, received_at)
    except Rejected:
        return None
    if not isinstance(skimmed, Skim) or skimmed.resources != marker or skimmed.edges != marker:
        return None
    return Cut(skimmed, body[start:resources_end], body[edges_start:edges_end])


def _find(body: memoryview, name: bytes, start: int, within: int, length: int) -> int | None:
    """Where the value of that member begins, if a list of that length can be there."""
    window = bytes(body[start : start + within])
    at = window.find(name)
    if at < 0:
        return None
    begin = start + at + len(name)
    is_list = (
        bytes(body[begin : begin + 1]) == b"[" and bytes(body[begin + length - 1 : begin + length]) == b"]"
    )
    return begin if is_list else None
