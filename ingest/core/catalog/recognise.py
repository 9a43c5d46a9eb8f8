"""Where a body's sections are: at a glance if it is laid out like the node's last one, else by a parse that passes them over."""

from __future__ import annotations

from collections.abc import Callable

from ingest.core.bounded_cache import BoundedCache
from ingest.core.catalog.formats import Command, Skim, skim
from ingest.core.catalog.layout import Cut, Layout, cut, layout_of, require_shallow_around
from ingest.core.delivery.routing import END_BYTES, START_BYTES, routing_key
from ingest.core.delivery.work import Descriptor

LAYOUTS_BYTES_MAX = 32 * 1024 * 1024  # of some 70 000 nodes


class Recogniser:
    """Remembers the layout of each node's last body."""

    def __init__(self) -> None:
        self._layouts: BoundedCache[int, Layout] = BoundedCache(
            LAYOUTS_BYTES_MAX, lambda _, layout: layout.bytes_
        )

    def glance(
        self, descriptor: Descriptor, body: memoryview, likely: Callable[[int], Layout | None]
    ) -> Cut | None:
        """The body in its parts, which have yet to prove that they are; ``likely`` tells the layout of a body of that length
        whose node is new here. None: it is laid out otherwise."""
        node = _node_of(descriptor, body)
        layout = self._layouts.get(node) or likely(len(body))
        found = layout and cut(body, layout, descriptor.headers, descriptor.arrived_at)
        if not found or found.layout is None:
            return None
        if found.layout != layout or node not in self._layouts.entries:
            self._layouts.put(node, found.layout)
        return found

    def skim(self, descriptor: Descriptor, body: memoryview) -> Cut | Command:
        """The same by a parse of the whole. Raises Rejected."""
        skimmed = skim(body, descriptor.headers, descriptor.arrived_at)
        if not isinstance(skimmed, Skim):
            return skimmed
        layout = layout_of(body, skimmed)
        require_shallow_around(body, layout)
        if layout is not None:
            self._layouts.put(_node_of(descriptor, body), layout)
        return Cut(skimmed, layout)


def _node_of(descriptor: Descriptor, body: memoryview) -> int:
    """A guess: another node's layout costs a glance."""
    return routing_key(descriptor.headers, bytes(body[:START_BYTES]), bytes(body[-END_BYTES:]))
