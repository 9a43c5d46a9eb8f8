"""How much of the receiver's window each destination may fill: many reports that wait must leave room for a catalog.

The broker holds back what exceeds a destination's prefetch, so a share is all that a backlog of one destination can have
of the window. Shares are by importance, which is the order of the destinations: each one's is twice the next one's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def windows(destinations: Sequence[str], window: int) -> Mapping[str, int]:
    """The part of ``window`` (messages, or bytes) for each destination, most important first; named twice, it counts at
    its first place. Together they are no more than the window, unless it is too small for one each.
    """
    names = list(dict.fromkeys(destinations))
    weights = [1 << place for place in reversed(range(len(names)))]
    shares = {
        name: max(1, window * weight // sum(weights)) for name, weight in zip(names, weights, strict=True)
    }
    if names:  # what rounding left
        shares[names[0]] += max(0, window - sum(shares.values()))
    return shares
