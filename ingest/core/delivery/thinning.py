"""Which of many bad messages are kept: the newest of each node, and a few of what names none; the others are counted.

A producer in trouble sends a thousand bad messages a minute. What an operator needs of them is the newest of every node,
so that nothing of its state is lost, and enough of the rest to see what is wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from ingest.core.delivery.work import Quarantine


class Kept(NamedTuple):
    """One message for the quarantine and all that its row counts: itself, and what it stands for."""

    message: Quarantine
    deliveries: tuple[int, ...]
    thinned: int = 0  # different messages among them of which nothing else stays


def thin(messages: Iterable[Quarantine], unnamed_max: int) -> list[Kept]:
    """Of a batch, in the order of arrival, what goes into the quarantine."""
    groups: dict[tuple[object, ...], list[Quarantine]] = {}
    for message in messages:
        groups.setdefault(_group_of(message), []).append(message)
    kept = []
    for group in groups.values():
        if group[0].certname is None:
            kept += [Kept(message, (message.delivery,)) for message in group[-unnamed_max:-1]]
            group = [*group[:-unnamed_max], group[-1]]
        kept.append(_newest(group))
    return kept


def row_digest(message: Quarantine, body_digest: bytes) -> bytes:
    """What the row is known by: the same is one row, whoever writes it."""
    if message.certname is not None:
        parts = list(map(str, _group_of(message)))
    else:
        parts = ["body", message.reason, message.producer or "", body_digest.hex()]
    return hashlib.sha256("\0".join(parts).encode()).digest()


def _group_of(message: Quarantine) -> tuple[object, ...]:
    if message.certname is not None:
        return "node", message.reason, message.kind, message.certname
    return "unnamed", message.reason, message.producer or ""


def _newest(group: list[Quarantine]) -> Kept:
    bodies = {(message.body_crc32, message.body_bytes) for message in group}
    return Kept(group[-1], tuple(message.delivery for message in group), len(bodies) - 1)
