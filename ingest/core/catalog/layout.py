"""How a node's last body was laid out, so that its next one need not be parsed to find its sections.

Puppet writes every catalog of a node alike: a header whose length hardly changes, the resources, the edges, a tail. So
the sections' ends are looked for where they were, the sections cut out, and what remains, a few hundred bytes, is
parsed as strictly as ever with a marker in each section's place. Nothing is believed of the cut before its sections
have proved to be JSON arrays: by being byte for byte what was parsed before, or by being parsed. Then the body as a
whole is the JSON that it seems to be, because a value in the place of another leaves the rest what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec
from blake3 import blake3

from ingest.core.catalog.formats import Skim, skim
from ingest.core.nesting import require_shallow
from ingest.errors import Rejected

_RESOURCES, _EDGES = b'"resources":[', b'"edges":['
SHIFT_BYTES_MAX = 2048  # how far the length of what stands before and behind varies: a version, tags, classes
HEAD_BYTES_MAX = 65536  # of a body before its resources: native catalogs have their tags and classes there
UNKNOWN_BYTES_MAX = 65536  # a body that is laid out otherwise is measured whole if it is not larger
GAP_BYTES_MAX = 256  # between resources and edges
GROWTH_BYTES_MAX = 32768  # of the edges from one run to the next; what grows more is parsed whole
_END_BYTES = 12  # by which the end of the edges is known again


class Layout(msgspec.Struct, frozen=True):
    """Where the sections of a body lie, resources first; offsets and lengths in bytes."""

    resources: int  # offset
    gap: bytes  # from the bracket that closes the resources to the one that opens the edges
    edges_length: int
    end: bytes  # the bracket that closes the edges, and a little of what follows
    tail_length: int  # behind that bracket

    @property
    def bytes_(self) -> int:
        """About what remembering it costs."""
        return 400 + len(self.gap)


class Cut(msgspec.Struct, frozen=True):
    """A body in its parts; its sections may not be parsed yet."""

    skimmed: Skim
    layout: Layout | None  # None: not as Puppet does it


def layout_of(body: memoryview, skimmed: Skim) -> Layout | None:
    """Where a skimmed body's sections are; None when that is not where Puppet puts them."""
    resources = _find(body, _RESOURCES, 0, HEAD_BYTES_MAX)
    if resources is None:
        return None
    resources += len(_RESOURCES) - 1
    closing = resources + len(skimmed.resources) - 1
    edges = _find(body, _EDGES, closing, closing + GAP_BYTES_MAX)
    if edges is None:
        return None
    edges += len(_EDGES) - 1
    found = _layout(body, resources, closing, edges, edges + len(skimmed.edges))
    are_lists = found.gap[:1] == found.end[:1] == b"]"
    return found if are_lists else None


def cut(body: memoryview, layout: Layout, headers: Mapping[str, str], arrived_at: datetime) -> Cut | None:
    """The body's parts if it may have this layout; None: skim it whole."""
    name = layout.resources - len(_RESOURCES) + 1
    start = _find(body, _RESOURCES, name - SHIFT_BYTES_MAX, name + len(_RESOURCES) + SHIFT_BYTES_MAX)
    expected_end = len(body) - layout.tail_length
    end = _find(body, layout.end, expected_end - SHIFT_BYTES_MAX, expected_end + _END_BYTES + SHIFT_BYTES_MAX)
    if start is None or end is None:
        return None
    start += len(_RESOURCES) - 1
    end += 1
    expected = end - layout.edges_length - len(layout.gap) + 1
    closing = _find(body, layout.gap, expected, expected + len(layout.gap))
    if closing is None:
        closing = _find(body, layout.gap, expected - GROWTH_BYTES_MAX, expected + GROWTH_BYTES_MAX)
    if closing is None:
        return None
    edges = closing + len(layout.gap) - 1
    if not start < closing < edges < end:
        return None
    around = (body[:start], body[closing + 1 : edges], body[end:])
    # No text holds its own digest: where the marker is read is where it was put, not in a string or elsewhere.
    marker = b'["%s"]' % blake3(b"".join(around)).hexdigest().encode()
    joined = marker.join(around)
    try:
        require_shallow(joined)
        skimmed = skim(joined, headers, arrived_at)
    except Rejected:
        return None
    if not isinstance(skimmed, Skim) or skimmed.resources != marker or skimmed.edges != marker:
        return None
    skimmed = msgspec.structs.replace(skimmed, resources=body[start : closing + 1], edges=body[edges:end])
    return Cut(skimmed, _layout(body, start, closing, edges, end))


def require_shallow_around(body: memoryview, layout: Layout | None) -> None:
    """Raises Rejected when what stands around the sections is nested too deeply. Nobody reads it but for a header's
    few members, so of a large body whose layout is not Puppet's it stays unknown."""
    if layout is None:
        if len(body) <= UNKNOWN_BYTES_MAX:
            require_shallow(body)
        return
    edges_end = len(body) - layout.tail_length
    around = (body[: layout.resources], layout.gap[1:-1], body[edges_end:])
    require_shallow(b"[]".join(around))


def _layout(body: memoryview, resources: int, closing: int, edges: int, end: int) -> Layout:
    return Layout(
        resources,
        bytes(body[closing : edges + 1]),
        end - edges,
        bytes(body[end - 1 : end - 1 + _END_BYTES]),
        len(body) - end,
    )


def _find(body: memoryview, text: bytes, from_: int, to: int) -> int | None:
    """Where that text begins, wholly between these offsets."""
    from_ = max(0, from_)
    at = bytes(body[from_ : max(from_, to)]).find(text)
    return None if at < 0 else from_ + at
