"""What must be written so that a node's stored membership becomes the incoming one."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import NamedTuple

# Slots a row of catalog_resources. docs/decisions/0003-store.md has the curve.
CHUNK_SLOTS = 256


class ChunkDiff(NamedTuple):
    """Rows of catalog_resources to write: (chunk, resource ids); and how many chunks the catalog has now."""

    changed: list[tuple[int, array[int]]]
    added: list[tuple[int, array[int]]]
    chunks: int
    shrunk: bool


def diff_chunks(stored: Mapping[int, array[int]], incoming: array[int]) -> ChunkDiff:
    """Compares chunk by chunk; ``incoming`` has one resource id a slot."""
    changed, added = [], []
    chunks = -(-len(incoming) // CHUNK_SLOTS)
    for chunk in range(chunks):
        ids = incoming[chunk * CHUNK_SLOTS : (chunk + 1) * CHUNK_SLOTS]
        before = stored.get(chunk)
        if before is None:
            added.append((chunk, ids))
        elif before != ids:
            changed.append((chunk, ids))
    return ChunkDiff(changed, added, chunks, shrunk=any(chunk >= chunks for chunk in stored))
